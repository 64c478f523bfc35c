// Package tempfs gives tests file systems of their own, small or read-only ones.
package tempfs
