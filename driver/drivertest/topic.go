package drivertest

var topicClauses []Clause
