package natsdriver

import (
	"slices"
	"strings"
	"testing"
)

func TestURLs(t *testing.T) {
	tests := []struct {
		url     string
		servers string // separated by spaces
		options int
	}{
		{"nats://localhost", "nats://localhost:4222", 0},
		{"hark://localhost", "nats://localhost:7422", 1}, // a broker's server always syncs
		{"hark://a:1,b/", "nats://a:1 nats://b:7422", 1},
		{"nats://u:p%40@a,b:5,nats://x:y@c", "nats://u:p%40@a:4222 nats://u:p%40@b:5 nats://x:y@c:4222", 1},
		{"tls://secret@a", "tls://secret@a:4222", 1},
		{"nats://[::1]:99", "nats://[::1]:99", 0},
		{"nats://a?name=x&sync=always&replicas=3&domain=d&token=t&tlsfirst=true&lease=2s", "nats://a:4222", 7},
	}
	for _, tt := range tests {
		got, err := parseURL(tt.url)
		if err != nil || !slices.Equal(got.servers, strings.Fields(tt.servers)) || len(got.options) != tt.options {
			t.Errorf("%s: got %v with %d options, %v, want %s with %d", tt.url, got.servers, len(got.options), err, tt.servers, tt.options)
		}
	}
}

func TestURLsThatAreWrong(t *testing.T) {
	tests := []struct{ url, want string }{
		{"nats:a", "want nats://"},
		{"kafka://a", "want nats://"},
		{"nats://", "server 1"},
		{"nats://u:secret@a,/x", "server 2"},
		{"nats://a:b:c", "server 1"},
		{"nats://a?tls=1", "tls of the URL is unknown; the known ones are creds"},
		{"nats://a?sync=never", "want always"},
		{"nats://a?replicas=x", "replicas"},
		{"nats://a?tlscert=x", "tlskey is missing"},
		{"nats://a?tlskey=x", "tlscert is missing"},
		{"nats://a?nkey=/does/not/exist", "nkey"},
		{"nats://a?creds=/does/not/exist", "/does/not/exist"},
		{"nats://a?%zz", "parameters"},
		{"nats://a?lease=1s&lease=2s", "lease of the URL is given 2 times"},
		{"nats://a?token=secret&token=secret", "token of the URL is given 2 times"},
	}
	for _, tt := range tests {
		_, err := parseURL(tt.url)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v, want %q", tt.url, err, tt.want)
		}
	}
}

func TestURLSyncsAlways(t *testing.T) {
	for url, want := range map[string]bool{
		"hark://a": true, "nats://a?sync=always": true, "nats://a": false, "nats://a?name=sync=always": false,
		"nats://a?sync=never": false, "hark://a?replicas=9": false, "nats:hark://a?sync=always": false,
	} {
		if got := URLSyncsAlways(url); got != want {
			t.Errorf("%s: got %v", url, got)
		}
	}
}

func TestOptionsThatAreWrong(t *testing.T) {
	for _, opt := range []Option{Replicas(0), Replicas(6), Lease(1), Source("")} {
		if _, err := makeOptions([]Option{opt}); err == nil {
			t.Error("got no error")
		}
	}
}
