package drivertest

var notifierClauses []Clause
