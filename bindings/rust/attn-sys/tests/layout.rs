//! Sizes, alignments and offsets agree with the header model, which libclang makes of the headers.
//!
//! The bindings carry bindgen's compile-time assertions, so what they state is what rustc (1.77 and
//! later, which has offset_of) lays out; this test compares all that they state with the model, in both directions.
//! `ATTN_HEADER_MODEL` names a file with the output of `python3 tools/header_model.py`; without it
//! the test runs that program itself.

use std::collections::BTreeMap;
use std::path::Path;

#[cfg(feature = "bindgen")]
const BINDINGS: &str = include_str!(concat!(env!("OUT_DIR"), "/types.rs"));
#[cfg(not(feature = "bindgen"))]
const BINDINGS: &str = include_str!("../src/bindings/types.rs");

/// "attn_error" -> size, "attn_error align" -> alignment, "attn_error.status" -> offset.
type Layouts = BTreeMap<String, u64>;

fn layouts_of_bindings() -> Layouts {
    let text: String = BINDINGS.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut layouts = Layouts::new();
    for piece in text.split("[ \"").flat_map(|piece| piece.split("[\"")).skip(1) {
        let Some((label, rest)) = piece.split_once('"') else { continue };
        let number = rest.split_once(" - ").and_then(|(_, rest)| rest.split_once("usize"));
        let Some((number, _)) = number else { continue };
        let key = if let Some(name) = label.strip_prefix("Size of ") {
            name.to_string()
        } else if let Some(name) = label.strip_prefix("Alignment of ") {
            format!("{name} align")
        } else if let Some(name) = label.strip_prefix("Offset of field: ") {
            name.replace("::", ".")
        } else {
            continue;
        };
        layouts.insert(key, number.parse().unwrap());
    }
    layouts
}

fn model() -> serde_json::Value {
    let text = match std::env::var_os("ATTN_HEADER_MODEL") {
        Some(file) => std::fs::read_to_string(&file)
            .unwrap_or_else(|error| panic!("ATTN_HEADER_MODEL {file:?}: {error}")),
        None => {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
            let output = std::process::Command::new("python3")
                .arg(root.join("tools/header_model.py"))
                .arg(root.join("include/attn"))
                .output()
                .expect("python3 runs tools/header_model.py");
            assert!(
                output.status.success(),
                "tools/header_model.py failed (it needs the Python package libclang; or set \
                 ATTN_HEADER_MODEL): {}",
                String::from_utf8_lossy(&output.stderr)
            );
            String::from_utf8(output.stdout).unwrap()
        }
    };
    serde_json::from_str(&text).unwrap()
}

fn layouts_of(model: &serde_json::Value) -> Layouts {
    let mut layouts = Layouts::new();
    for record in model["structs"].as_array().unwrap() {
        if record["opaque"].as_bool() == Some(true) {
            continue;
        }
        let name = record["name"].as_str().unwrap();
        layouts.insert(name.to_string(), record["size"].as_u64().unwrap());
        layouts.insert(format!("{name} align"), record["align"].as_u64().unwrap());
        for field in record["fields"].as_array().unwrap() {
            let key = format!("{name}.{}", field["name"].as_str().unwrap());
            layouts.insert(key, field["offset"].as_u64().unwrap());
        }
    }
    layouts
}

#[test]
fn structs_lie_as_the_headers_say() {
    let expected = layouts_of(&model());
    assert!(expected.contains_key("attn_sdpa_args.kv_page_indptr"), "the model is too small");
    // Opaque handles have an empty body in Rust, which says nothing about them.
    let mut ours = layouts_of_bindings();
    ours.retain(|key, _| {
        let name = key.split([' ', '.']).next().unwrap_or_default();
        name != "attn_context" && name != "attn_plan"
    });
    assert_eq!(ours, expected);
}

#[test]
fn the_comparison_can_fail() {
    let mut wrong = layouts_of(&model());
    *wrong.get_mut("attn_tensor.shape").unwrap() += 8;
    assert_ne!(layouts_of_bindings(), wrong);
}

#[test]
fn constants_have_the_headers_values() {
    let model = model();
    let mut seen = 0;
    for group in model["enums"].as_array().unwrap() {
        for value in group["values"].as_array().unwrap() {
            let name = value["name"].as_str().unwrap();
            let line = BINDINGS
                .lines()
                .find(|line| line.starts_with(&format!("pub const {name}: ")))
                .unwrap_or_else(|| panic!("{name} is missing in the bindings"));
            let ours = line.rsplit_once("= ").unwrap().1.trim_end_matches(';');
            assert_eq!(ours, value["value"].to_string(), "{name}");
            seen += 1;
        }
    }
    assert!(seen > 50, "the model has {seen} enum values");
}
