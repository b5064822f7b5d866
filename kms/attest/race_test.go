//go:build race

package attest_test

func init() { raceDetector = true }
