// Package spell finds the word that a mistyped one was meant to be.
package spell

import (
	"slices"
	"strings"
)

// Nearest returns the only known word that begins with word, or else the one that
// is at most two edits away; "" if there is none.
func Nearest(word string, known []string) string {
	begins := func(k string) bool { return word != "" && strings.HasPrefix(k, word) }
	if i := slices.IndexFunc(known, begins); i >= 0 && !slices.ContainsFunc(known[i+1:], begins) {
		return known[i]
	}
	best, least := "", 3
	for _, k := range known {
		if d := distance(word, k); d < least && d < len(k) {
			best, least = k, d
		}
	}
	return best
}

// distance is the number of single-byte edits between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			edit := diagonal
			if a[i] != b[j] {
				edit++
			}
			diagonal = row[j+1]
			row[j+1] = min(edit, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
