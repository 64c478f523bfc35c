package drivertest

import "slices"

// topicClauses are the clauses on topics, on requests and on closing a bus.
var topicClauses = slices.Concat(publishClauses, subscribeClauses, groupClauses, overflowClauses,
	storedClauses, retryClauses, batchClauses, patternClauses, durableClauses, handlerClauses, filterClauses, closeClauses)
