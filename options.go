package hark

// SubscribeOption configures a subscription.
type SubscribeOption interface{ applySubscribe(*subscribeConfig) error }

// ListenOption configures a listener of a Notifier.
type ListenOption interface{ applyListen(*listenConfig) error }

// ObserveOption configures an observer of a Value.
type ObserveOption interface{ applyObserve(*observeConfig) error }

type subscribeConfig struct {
	queue queue
}

type listenConfig struct {
	queue queue
}

type observeConfig struct {
	queue queue
}
