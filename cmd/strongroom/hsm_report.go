package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/BurntSushi/toml"

	"strongroom/hsm/pkcs11"
	"strongroom/softhsm"
)

// checkText writes a report on a token for people.
func checkText(r *pkcs11.Report, block string) string {
	var b strings.Builder
	rows := [][]string{
		{"Token", fmt.Sprintf("%s, %s of %s, hardware %s, firmware %s", r.Token, r.Token.Model, r.Token.Manufacturer, r.Token.Hardware, r.Token.Firmware)},
		{"Library", r.Token.Library + ", " + r.Token.Module},
	}
	b.WriteString(table(rows) + "\n")
	rows = nil
	for _, f := range r.Findings {
		rows = append(rows, []string{string(f.Verdict), f.Name, f.Detail})
		if f.Remedy != "" {
			rows = append(rows, []string{"", "", "→ " + f.Remedy})
		}
	}
	b.WriteString(table(rows))
	if len(r.Load) > 0 {
		b.WriteString("\nEncryptions per second, and how long one takes (median, 99th percentile)\n" + table(loadTable(r.Load)))
	}
	if r.Fit.Usable {
		b.WriteString("\nUsable. This configuration fits:\n\n" + block)
	} else {
		lacking := strings.Join(r.Fit.Lacking, ", ")
		if lacking == "" {
			lacking = "not all could be measured"
		}
		b.WriteString("\nNOT USABLE: " + printable(lacking) + "\n")
	}
	return b.String()
}

// loadTable has a row for each number of sessions and a column for each length.
func loadTable(load []pkcs11.LoadFigures) [][]string {
	head := []string{"at a time"}
	var rows [][]string
	row := map[int]int{}
	column := map[int]int{}
	for _, l := range load {
		if _, ok := column[l.Bytes]; !ok {
			column[l.Bytes] = len(head)
			head = append(head, fmt.Sprintf("%d bytes", l.Bytes))
		}
		if _, ok := row[l.Sessions]; !ok {
			row[l.Sessions] = len(rows)
			rows = append(rows, []string{fmt.Sprint(l.Sessions)})
		}
		i := row[l.Sessions]
		for len(rows[i]) <= column[l.Bytes] {
			rows[i] = append(rows[i], "")
		}
		rows[i][column[l.Bytes]] = fmt.Sprintf("%.0f/s  %s  %s", l.PerSecond, micros(l.P50US), micros(l.P99US))
	}
	return append([][]string{head}, rows...)
}

func micros(us float64) string {
	if us < 10_000 {
		return fmt.Sprintf("%.0f µs", us)
	}
	return fmt.Sprintf("%.1f ms", us/1000)
}

// configBlock is what fits, to be put into a configuration file.
func configBlock(r *pkcs11.Report, config pkcs11.Config) string {
	lines := [][2]string{{"module", tomlValue(r.Fit.Module)}}
	if config.InitArgs != "" {
		lines = append(lines, [2]string{"init_args", tomlValue(config.InitArgs)})
	}
	if r.Fit.Label != "" {
		lines = append(lines, [2]string{"token_label", tomlValue(r.Fit.Label)})
	} else {
		lines = append(lines, [2]string{"token_serial", tomlValue(r.Fit.Serial)})
	}
	lines = append(lines, [2]string{"sessions", fmt.Sprint(r.Fit.Sessions)})
	if n := fittingWorkers(r); n < defaultHSM.Workers {
		lines = append(lines, [2]string{"workers", fmt.Sprint(n)})
	}
	if r.Fit.IV != pkcs11.IVHost {
		lines = append(lines, [2]string{"iv", tomlValue(r.Fit.IV.String())})
	}
	if r.Fit.SessionCopies {
		lines = append(lines, [2]string{"session_copies", "true"})
	}
	dir := config.SyncDir
	if dir == "" && r.Token.Manufacturer == "SoftHSM project" {
		dir, _ = softhsm.TokenDir()
	}
	if dir != "" {
		lines = append(lines, [2]string{"sync_dir", tomlValue(dir)})
	}
	width := 0
	for _, l := range lines {
		width = max(width, len(l[0]))
	}
	var b strings.Builder
	b.WriteString("[hsm]\n")
	for _, l := range lines {
		fmt.Fprintf(&b, "%-*s = %s\n", width, l[0], l[1])
	}
	return b.String()
}

// fittingWorkers is how many workers there can be if the token has few sessions: each needs eight for other things than encryption.
func fittingWorkers(r *pkcs11.Report) int {
	if r.Sessions.Refused == "" {
		return defaultHSM.Workers
	}
	return min(defaultHSM.Workers, max(1, (r.Sessions.Opened+2-r.Fit.Sessions)/8))
}

// tomlValue writes a string as TOML has it.
func tomlValue(s string) string {
	var b bytes.Buffer
	if err := toml.NewEncoder(&b).Encode(map[string]string{"x": s}); err != nil {
		return fmt.Sprintf("%q", s)
	}
	return strings.TrimSpace(strings.TrimPrefix(b.String(), "x = "))
}
