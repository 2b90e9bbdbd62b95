package attn

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestABICheck(t *testing.T) {
	must(t, checkABI(abiVersion))
	for _, client := range []uint32{abiVersion + 1, abiVersion + 1<<16, 0} {
		expect(t, checkABI(client), ErrVersion, "", "1.")
	}
	if Version() == "" || !strings.Contains(BuildInfo(), Version()) {
		t.Fatalf("version %q, build info %q", Version(), BuildInfo())
	}
}

// headerModel is what libclang makes of the headers: from the file that ATTN_HEADER_MODEL names, or
// made here.
func headerModel(t *testing.T) (model struct {
	Structs []struct {
		Name   string
		Opaque bool
		Size   uintptr
		Align  uintptr
		Fields []struct {
			Name   string
			Offset uintptr
		}
	}
}) {
	t.Helper()
	var text []byte
	var err error
	if file := os.Getenv("ATTN_HEADER_MODEL"); file != "" {
		text, err = os.ReadFile(file)
	} else {
		command := exec.Command("python3", "../../../tools/header_model.py", "../../../include/attn")
		command.Stderr = os.Stderr
		text, err = command.Output()
	}
	if err != nil {
		t.Fatalf("no header model (set ATTN_HEADER_MODEL to the output of tools/header_model.py): %v", err)
	}
	if err := json.Unmarshal(text, &model); err != nil {
		t.Fatal(err)
	}
	return model
}

func TestLayouts(t *testing.T) {
	ours := layouts()
	seen := 0
	for _, record := range headerModel(t).Structs {
		if record.Opaque {
			continue
		}
		seen++
		layout, ok := ours[record.Name]
		if !ok {
			t.Errorf("%s is not in layouts(): add it", record.Name)
			continue
		}
		if layout.Size() != record.Size || uintptr(layout.Align()) != record.Align {
			t.Errorf("%s: size %d, align %d; the headers say %d, %d",
				record.Name, layout.Size(), layout.Align(), record.Size, record.Align)
		}
		fields := 0
		for i := 0; i < layout.NumField(); i++ {
			if layout.Field(i).Name != "_" { // padding
				fields++
			}
		}
		if fields != len(record.Fields) {
			t.Errorf("%s: %d fields; the headers say %d", record.Name, fields, len(record.Fields))
		}
		for _, field := range record.Fields {
			f, ok := layout.FieldByName(field.Name)
			if !ok || f.Offset != field.Offset {
				t.Errorf("%s.%s: offset %d (there: %v); the headers say %d",
					record.Name, field.Name, f.Offset, ok, field.Offset)
			}
		}
	}
	if seen != len(ours) {
		t.Errorf("the headers have %d structs, layouts() %d", seen, len(ours))
	}
}
