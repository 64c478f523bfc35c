package hark

// ListenOption configures a listener of a Notifier.
type ListenOption interface{ applyListen(*listenConfig) error }

// ObserveOption configures an observer of a Value.
type ObserveOption interface{ applyObserve(*observeConfig) error }

type listenConfig struct {
	queue queue
}

type observeConfig struct {
	queue queue
}
