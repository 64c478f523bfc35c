// Package hark is typed messaging for Go, from one goroutine to a cluster: an
// event bus, channels, notifications and observable values.
package hark
