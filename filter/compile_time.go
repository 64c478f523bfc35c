package filter

import (
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
)

// timeParts are the accessors of a timestamp in a zone.
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

// durationParts are the accessors that durations have too.
var durationParts = map[string]func(time.Duration) int64{
	"getHours":   func(d time.Duration) int64 { return int64(d.Hours()) },
	"getMinutes": func(d time.Duration) int64 { return int64(d.Minutes()) },
	"getSeconds": func(d time.Duration) int64 { return int64(d.Seconds()) },
}

// timeCall compiles the accessors of times and durations; it returns nil for
// other functions.
func (k *compiler) timeCall(fn string, args []ast.Expr) (evalFn, error) {
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
	overload := k.overload(fn)
	return k.unary(args[0], func(_ *evaluation, v *value) value {
		switch {
		case v.k == kTimestamp:
			return intValue(int64(part(v.time().In(zone))))
		case v.k == kDuration && ofDuration != nil:
			return intValue(ofDuration(v.duration()))
		}
		return errValue(overload)
	})
}

// parseZone understands what CEL does: the name of a zone, or [+-]hh:mm.
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

// constantTime evaluates timestamp("...") and duration("...") once and for all.
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
