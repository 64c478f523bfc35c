package broker

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/harkbus/hark/driver"
)

func TestEventJSON(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC)
	tests := []struct {
		m    driver.Received
		text string
	}{
		{
			driver.Received{Topic: "a.b", Seq: 7, Message: driver.Message{ID: "1", Key: "k", HasKey: true, Time: at, Headers: map[string]string{"n": "1", "ce-type": "t", "ce-source": "/s"}, Data: []byte(`{"x":1}`)}},
			`{"topic":"a.b","seq":7,"id":"1","source":"/s","type":"t","time":"2026-03-04T05:06:07.000000008Z","key":"k","headers":{"n":"1"},"data":{"x":1}}`,
		},
		{driver.Received{Topic: "a", Message: driver.Message{HasKey: true}}, `{"topic":"a","key":""}`},
		{driver.Received{Topic: "a", Message: driver.Message{ContentType: "text/plain", Data: []byte("plain <text>")}}, `{"topic":"a","datacontenttype":"text/plain","data":"plain \u003ctext\u003e"}`},
		{driver.Received{Topic: "a", Message: driver.Message{ContentType: "image/png", Data: []byte{0xff, 1}}}, `{"topic":"a","datacontenttype":"image/png","data_base64":"/wE="}`},
		{driver.Received{Topic: "a", Message: driver.Message{Data: []byte(`"text"`)}}, `{"topic":"a","data":"text"}`},
	}
	for _, tt := range tests {
		got, err := json.Marshal(&Event{&tt.m})
		if err != nil || string(got) != tt.text {
			t.Errorf("got  %s, %v\nwant %s", got, err, tt.text)
		}
		var back Event
		if err := json.Unmarshal(got, &back); err != nil || !reflect.DeepEqual(*back.Message, tt.m) {
			t.Errorf("%s: got %+v, %v, want %+v", got, back.Message, err, tt.m)
		}
	}
	for _, text := range []string{`1`, `{"topic":1}`, `{"data":1,"data_base64":"eA=="}`, `{"datacontenttype":"text/plain","data":1}`, `{"time":"soon"}`} {
		if err := json.Unmarshal([]byte(text), &Event{}); err == nil {
			t.Errorf("%s was read", text)
		}
	}
	var e Event
	if err := json.Unmarshal([]byte(`{"specversion":"1.0","topic":"a","partitionkey":"k","data":[1]}`), &e); err != nil || e.Key() != "k" || string(e.Message.Data) != "[1]" {
		t.Errorf("got %+v, %v", e.Message, err)
	}
}
