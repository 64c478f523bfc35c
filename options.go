package hark

// ListenOption configures a listener of a Notifier.
type ListenOption interface{ applyListen(*listenConfig) error }

type listenConfig struct {
	queue queue
}
