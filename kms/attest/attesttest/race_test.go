//go:build race

package attesttest_test

func init() { raceDetector = true }
