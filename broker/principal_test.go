package broker

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
)

func basic(name, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+password))
}

// identified returns the sender of a request with a header.
func identified(t *testing.T, b *Broker, header string) (string, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(testContext(t), http.MethodGet, "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", header)
	p, err := b.auth.identify(r)
	if err != nil {
		return "", err
	}
	return p.who(), nil
}

func TestIdentify(t *testing.T) {
	b, err := New(config(t, users(t)), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ header, who string }{
		{basic("ada", "secret-ada"), "ada"},
		{basic("ada", "secret-ada"), "ada"}, // remembered
		{basic("bob", "secret-bob"), "bob"},
		{"Bearer secret-bob", "bob"},
		{"bearer  secret-bob ", "bob"},
		{"", ""},
		{"Bearer", ""},
		{"Bearer secret-ada", ""}, // a password is not a token
		{"Bearer bob:secret-bob", ""},
		{basic("ada", ""), ""},
		{basic("ada", "secret-bob"), ""},
		{basic("bob", "secret-ada"), ""},
		{basic("", "secret-ada"), ""},
		{basic("nobody", "secret-ada"), ""},
		{basic(internalUser, b.auth.secret), ""},
		{"Basic !!!", ""},
		{"Digest x", ""},
	} {
		got, err := identified(t, b, tt.header)
		if got != tt.who || (err == nil) != (tt.who != "") {
			t.Errorf("%q: got %q, %v, want %q", tt.header, got, err, tt.who)
		}
		if err != nil && (err.(*refusal).Status != http.StatusUnauthorized || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%q: got %v, want 401 and no secret", tt.header, err)
		}
	}
}

// TestPasswordsAreForgotten changes a password that is remembered.
func TestPasswordsAreForgotten(t *testing.T) {
	text := users(t)
	b, err := New(config(t, text), nil)
	if err != nil {
		t.Fatal(err)
	}
	if who, err := identified(t, b, basic("ada", "secret-ada")); who != "ada" {
		t.Fatal(err)
	}
	hash, err := HashPassword([]byte("another"))
	if err != nil {
		t.Fatal(err)
	}
	c := config(t, text)
	c.Users[0].Password = hash
	b.auth.set(c)
	if who, _ := identified(t, b, basic("ada", "secret-ada")); who != "" {
		t.Error("the old password is still good")
	}
}

func TestPrincipal(t *testing.T) {
	p := &principal{&user{UserConfig: UserConfig{Name: "ada", Publish: []string{"orders.>"}, Subscribe: []string{"region.*", "a"}, Admin: []string{"shop.*.x"}}}}
	everything := &principal{&user{UserConfig: UserConfig{Name: "eve", Publish: []string{">"}, Subscribe: []string{">"}, Admin: []string{">"}}}}
	var nobody *principal
	for _, tt := range []struct {
		what          string
		pub, sub, adm bool
	}{
		{"orders.placed", true, false, false},
		{"orders", false, false, false},
		{"region.eu", false, true, false},
		{"region.*", false, true, false},
		{"region.>", false, false, false},
		{"region.eu.x", false, false, false},
		{"a", false, true, false},
		{">", false, false, false},
		{"shop.b.x", false, false, true},
		{"shop.*.x", false, false, true},
		{"shop.*.*", false, false, false},
	} {
		if p.mayPublish(tt.what) != tt.pub || p.maySubscribe(tt.what) != tt.sub || p.mayAdminister(tt.what) != tt.adm {
			t.Errorf("%s: got %v %v %v, want %v", tt.what, p.mayPublish(tt.what), p.maySubscribe(tt.what), p.mayAdminister(tt.what), tt)
		}
		for _, may := range []*principal{everything, nobody} {
			if !may.mayPublish(tt.what) || !may.maySubscribe(tt.what) || !may.mayAdminister(tt.what) {
				t.Errorf("%s: refused to %q", tt.what, may.who())
			}
		}
	}
	if everything.maySubscribe("_INBOX.bob.>") || everything.mayPublish("_INBOX.bob.1") {
		t.Error("the replies to others are not theirs")
	}
}

// TestPasswordsAreRemembered connects while no password can be checked.
func TestPasswordsAreRemembered(t *testing.T) {
	b := start(t, config(t, users(t)))
	dial(t, b, "ada:secret-ada@")
	defer checkNone(t, b)()
	dial(t, b, "ada:secret-ada@")
	if who, err := identified(t, b, basic("ada", "secret-ada")); who != "ada" {
		t.Errorf("over HTTP: got %q, %v", who, err)
	}
}
