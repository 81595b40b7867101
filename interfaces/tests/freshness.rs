//! The `.varlink` files are the source of truth: they parse, and `src/generated` is what
//! `varlink_generator` makes of them. Run with `REGENERATE=1` to write the files anew.

#![allow(
    clippy::unwrap_used,
    reason = "a panic is how a test says what is wrong"
)]

use std::fs;
use std::path::{Path, PathBuf};

use quote::{ToTokens, format_ident};
use syn::visit_mut::VisitMut;
use syn::{Attribute, Fields, Item, parse_quote};

const INTERFACES: [(&str, &str); 3] = [
    ("org.rdmahotplug.Detector", "detector"),
    ("org.rdmahotplug.Loader", "loader"),
    ("org.rdmahotplug.Orchestrator", "orchestrator"),
];

fn crate_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn idl(interface: &str) -> String {
    let path = crate_dir().join(format!("varlink/{interface}.varlink"));
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn every_interface_parses_under_its_file_name() {
    for (interface, _) in INTERFACES {
        let text = idl(interface);
        let parsed = varlink_parser::IDL::try_from(text.as_str())
            .unwrap_or_else(|e| panic!("{interface}: {e}"));
        assert_eq!(parsed.name, interface);
    }
}

#[test]
fn generated_types_are_fresh() {
    for (interface, module) in INTERFACES {
        let path = crate_dir().join(format!("src/generated/{module}.rs"));
        let fresh = generate(interface);
        if std::env::var_os("REGENERATE").is_some() {
            fs::write(&path, &fresh).unwrap();
        }
        assert_eq!(
            fs::read_to_string(&path).unwrap_or_default(),
            fresh,
            "{} differs from {interface}.varlink: run the tests once with REGENERATE=1",
            Path::new(&path).display()
        );
    }
}

/// The wire types of one interface: what `varlink_generator` makes, without its client and
/// server (which `interfaces::server` and `interfaces::client` replace), with Rust's names
/// inside and the contract's names on the wire, absent fields left out, and arguments that
/// refuse fields they do not know.
fn generate(interface: &str) -> String {
    let mut made = Vec::new();
    varlink_generator::generate(&mut idl(interface).as_bytes(), &mut made, false).unwrap();
    let file = syn::parse_file(&String::from_utf8(made).unwrap()).unwrap();
    let mut types = syn::File {
        shebang: None,
        attrs: Vec::new(),
        items: file
            .items
            .into_iter()
            .filter_map(|item| match item {
                Item::Struct(s) if wire_type(&s.ident.to_string()) => Some(wire_struct(s)),
                Item::Enum(e) if wire_type(&e.ident.to_string()) => Some(wire_enum(e)),
                _ => None,
            })
            .collect(),
    };
    RustTypeNames.visit_file_mut(&mut types);
    format!(
        "//! Wire types of `{interface}`, made from `varlink/{interface}.varlink` by\n\
         //! `tests/freshness.rs`. Must never be edited by hand.\n\n\
         use serde::{{Deserialize, Serialize}};\n\n{}",
        prettyplease::unparse(&types)
    )
}

/// Empty structs and the generator's own plumbing carry nothing over the wire.
fn wire_type(name: &str) -> bool {
    !matches!(
        name,
        "Error" | "ErrorKind" | "VarlinkClient" | "VarlinkInterfaceProxy"
    )
}

fn derives(copy: bool) -> Attribute {
    if copy {
        parse_quote!(#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)])
    } else {
        parse_quote!(#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)])
    }
}

fn wire_struct(mut item: syn::ItemStruct) -> Item {
    item.attrs = vec![derives(false)];
    if item.ident.to_string().ends_with("_Args") {
        item.attrs.push(parse_quote!(#[serde(deny_unknown_fields)]));
    }
    if let Fields::Named(fields) = &mut item.fields {
        for field in &mut fields.named {
            let wire = plain(field.ident.as_ref().unwrap());
            let rust = snake_case(&wire);
            field.attrs.clear();
            if rust != wire {
                field.attrs.push(parse_quote!(#[serde(rename = #wire)]));
            }
            if field.ty.to_token_stream().to_string().starts_with("Option") {
                field
                    .attrs
                    .push(parse_quote!(#[serde(default, skip_serializing_if = "Option::is_none")]));
            }
            field.ident = Some(format_ident!("{rust}"));
        }
    }
    Item::Struct(item)
}

fn wire_enum(mut item: syn::ItemEnum) -> Item {
    item.attrs = vec![derives(true)];
    for variant in &mut item.variants {
        let wire = plain(&variant.ident);
        variant.attrs = vec![parse_quote!(#[serde(rename = #wire)])];
        variant.ident = format_ident!("{}", camel_case(&wire));
    }
    Item::Enum(item)
}

/// `List_Args` is `ListArgs` in Rust.
struct RustTypeNames;

impl VisitMut for RustTypeNames {
    fn visit_ident_mut(&mut self, ident: &mut proc_macro2::Ident) {
        let name = plain(ident);
        if name.starts_with(char::is_uppercase) {
            *ident = format_ident!("{}", camel_case(&name));
        }
    }
}

fn plain(ident: &proc_macro2::Ident) -> String {
    ident.to_string().trim_start_matches("r#").to_owned()
}

/// `nodeGUID` is `node_guid`: a capital starts a word unless it stands inside a run of them.
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    let mut last_upper = false;
    for c in name.chars() {
        if c.is_uppercase() && !last_upper && !snake.is_empty() {
            snake.push('_');
        }
        last_upper = c.is_uppercase();
        snake.extend(c.to_lowercase());
    }
    snake
}

fn camel_case(name: &str) -> String {
    name.split('_')
        .map(|word| {
            let (first, rest) = word.split_at(1);
            first.to_uppercase() + rest
        })
        .collect()
}
