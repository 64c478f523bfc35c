module github.com/harkbus/hark

go 1.25.0

require github.com/anishathalye/porcupine v1.0.3
