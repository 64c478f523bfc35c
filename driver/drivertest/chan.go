package drivertest

var chanClauses []Clause
