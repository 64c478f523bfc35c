package drivertest

var valueClauses []Clause
