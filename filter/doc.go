// Package filter decides which messages somebody wants, by expressions.
package filter
