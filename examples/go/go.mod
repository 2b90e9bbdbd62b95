module example

go 1.19

require github.com/libattn/libattn/bindings/go v0.1.0

// In this repository; leave this line out elsewhere.
replace github.com/libattn/libattn/bindings/go => ../../bindings/go
