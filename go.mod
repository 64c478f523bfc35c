module github.com/harkbus/hark

go 1.25.0
