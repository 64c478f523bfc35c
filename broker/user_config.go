package broker

// UserConfig is a user who may connect, with a name and a password or token.
type UserConfig struct {
	Name string
	// Password is the bcrypt hash of a password.
	Password string
	// Token is sha256: and the SHA-256 of a random token in hexadecimal digits.
	Token string
	// Publish and Subscribe are the topics and patterns to which the user may
	// publish, send requests, subscribe and answer.
	Publish, Subscribe []string
	// Admin are the topics and patterns that the user may administer over HTTP:
	// their topics, groups and dead letters. The pattern > is the broker as a
	// whole.
	Admin []string
}

var userFields = []field[UserConfig]{
	text("name", "token without dots", "", "the name with which the user connects", func(u *UserConfig) *string { return &u.Name }),
	text("password", "bcrypt hash", "", "the hash of a password (`hark user --password`)", func(u *UserConfig) *string { return &u.Password }),
	text("token", "sha256:HEX", "", "the hash of a token (`hark user`), which the user gives instead of the password", func(u *UserConfig) *string { return &u.Token }),
	words("publish", "topics or patterns", "the topics to which the user may publish and send requests", func(u *UserConfig) *[]string { return &u.Publish }),
	words("subscribe", "topics or patterns", "the topics to which the user may subscribe, and the requests that the user may answer", func(u *UserConfig) *[]string { return &u.Subscribe }),
	words("admin", "topics or patterns", "the topics that the user may administer over HTTP, with their groups and dead letters; > is the broker as a whole", func(u *UserConfig) *[]string { return &u.Admin }),
}

const (
	tokenPrefix = "sha256:"
	// internalUser is the user of the broker itself on its server.
	internalUser = "hark-broker"
)
