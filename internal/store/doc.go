// Package store runs a NATS server with JetStream in this process, on a
// directory that it keeps for itself and whose files it checks before and after.
package store
