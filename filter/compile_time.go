package filter

import (
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
)

// timeParts are the accessors of a timestamp in a time zone.
var timeParts = map[string]func(time.Time) int{
	"getFullYear":     time.Time.Year,
	"getMonth":        func(t time.Time) int { return int(t.Month()) - 1 },
	"getDayOfYear":    func(t time.Time) int { return t.YearDay() - 1 },
	"getDayOfMonth":   func(t time.Time) int { return t.Day() - 1 },
	"getDate":         time.Time.Day,
	"getDayOfWeek":    func(t time.Time) int { return int(t.Weekday()) },
	"getHours":        time.Time.Hour,
	"getMinutes":      time.Time.Minute,
	"getSeconds":      time.Time.Second,
	"getMilliseconds": func(t time.Time) int { return t.Nanosecond() / 1e6 },
}

// durationParts are the accessors that durations also have.
var durationParts = map[string]func(time.Duration) int64{
	"getHours":   func(d time.Duration) int64 { return int64(d.Hours()) },
	"getMinutes": func(d time.Duration) int64 { return int64(d.Minutes()) },
	"getSeconds": func(d time.Duration) int64 { return int64(d.Seconds()) },
}

// timeCall compiles the accessors of timestamps and durations. It returns nil
// for other functions.
func (k *compiler) timeCall(fn string, call ast.Expr, args []ast.Expr) (evalFn, error) {
	part := timeParts[fn]
	if part == nil {
		return nil, nil
	}
	if fn == "getMilliseconds" && k.typeOf(args[0]).Kind() != types.TimestampKind {
		return nil, unsupported(fn)
	}
	zone := time.UTC
	ofDuration := durationParts[fn]
	if len(args) == 2 {
		name, ok := constString(args[1])
		if !ok {
			return nil, unsupported(fn + " in a zone that is not constant")
		}
		if zone, ok = parseZone(name); !ok {
			return nil, unsupported(fn + " in an unknown zone")
		}
		ofDuration = nil
	}
	ofTime := true
	switch only := k.overloadOf(call); {
	case strings.HasPrefix(only, "timestamp_"):
		ofDuration = nil
	case strings.HasPrefix(only, "duration_"):
		ofTime = false
	}
	overload := k.overload(fn)
	return k.unary(args[0], func(_ *evaluation, v value) value {
		switch {
		case v.k == kTimestamp && ofTime:
			return intValue(int64(part(v.time().In(zone))))
		case v.k == kDuration && ofDuration != nil:
			return intValue(ofDuration(v.duration()))
		}
		return errValue(overload)
	})
}

// parseZone accepts what CEL does: the name of a time zone, or [+-]hh:mm.
func parseZone(name string) (*time.Location, bool) {
	h, m, offset := strings.Cut(name, ":")
	if !offset {
		zone, err := time.LoadLocation(name)
		return zone, err == nil
	}
	hours, err1 := strconv.Atoi(h)
	minutes, err2 := strconv.Atoi(m)
	if err1 != nil || err2 != nil || hours < -23 || hours > 23 || minutes < 0 || minutes > 59 {
		return nil, false
	}
	if name[0] == '-' {
		minutes = -minutes
	}
	return time.FixedZone("", (hours*60+minutes)*60), true
}

// constantTime evaluates timestamp("...") and duration("...") at compile time.
func (k *compiler) constantTime(c ast.CallExpr) (value, bool) {
	if len(c.Args()) != 1 || c.IsMemberFunction() {
		return value{}, false
	}
	s, ok := constString(c.Args()[0])
	if !ok {
		return value{}, false
	}
	switch c.FunctionName() {
	case "timestamp":
		v := fromRef(types.String(s).ConvertToType(types.TimestampType))
		return v, v.k == kTimestamp
	case "duration":
		v := fromRef(types.String(s).ConvertToType(types.DurationType))
		return v, v.k == kDuration
	}
	return value{}, false
}

// parseTimestamp parses what CEL accepts as a timestamp: strict RFC 3339,
// within the years 1 to 9999.
func parseTimestamp(s string) (value, bool) {
	year, ok1 := digits(s, 0, 4)
	month, ok2 := digits(s, 5, 2)
	day, ok3 := digits(s, 8, 2)
	hour, ok4 := digits(s, 11, 2)
	minute, ok5 := digits(s, 14, 2)
	second, ok6 := digits(s, 17, 2)
	if !(ok1 && ok2 && ok3 && ok4 && ok5 && ok6) || s[4] != '-' || s[7] != '-' || s[10] != 'T' || s[13] != ':' || s[16] != ':' ||
		month < 1 || month > 12 || day < 1 || hour > 23 || minute > 59 || second > 59 {
		return value{}, false
	}
	rest := s[19:]
	nanos := 0
	if rest != "" && rest[0] == '.' {
		n, scale := 1, int(1e8)
		for ; n < len(rest) && rest[n]-'0' <= 9; n++ {
			nanos += int(rest[n]-'0') * scale
			scale /= 10 // digits beyond nanoseconds are ignored
		}
		if n == 1 {
			return value{}, false
		}
		rest = rest[n:]
	}
	offset := 0
	if rest != "Z" {
		h, ok1 := digits(rest, 1, 2)
		m, ok2 := digits(rest, 4, 2)
		if !ok1 || !ok2 || len(rest) != 6 || rest[3] != ':' || h > 23 || m > 59 {
			return value{}, false
		}
		switch offset = (h*60 + m) * 60; rest[0] {
		case '+':
		case '-':
			offset = -offset
		default:
			return value{}, false
		}
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, nanos, time.UTC)
	if t.Day() != day {
		return value{}, false // the month has fewer days
	}
	t = t.Add(-time.Duration(offset) * time.Second)
	if unix := t.Unix(); unix < minUnix || unix > maxUnix {
		return value{}, false
	}
	return timeValue(t), true
}

// The range of a timestamp, in Unix seconds.
const (
	minUnix = -62135596800
	maxUnix = 253402300799
)

// digits reads n decimal digits.
func digits(s string, at, n int) (int, bool) {
	if len(s) < at+n {
		return 0, false
	}
	v := 0
	for _, c := range []byte(s[at : at+n]) {
		if c -= '0'; c > 9 {
			return 0, false
		}
		v = v*10 + int(c)
	}
	return v, true
}
