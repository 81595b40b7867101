//! A module tree with arbitrary names: depmod's index of modules without dependencies, in its
//! format (`libkmod/libkmod-index.h`), and their files. Must never stand for a real kernel's.

use std::fs;
use std::path::Path;

/// `INDEX_MAGIC` and version 2.1, big-endian like all numbers in the file.
const HEADER: [u32; 2] = [0xb007_f457, 0x0002_0001];
const PREFIX: u32 = 0x8000_0000;
const VALUES: u32 = 0x4000_0000;
const CHILDREN: u32 = 0x2000_0000;

/// Adds the modules `PREFIX00` to `PREFIX99` to `tree`. This replaces the index, and keeps all
/// other files.
pub fn lay_out(tree: &Path, prefix: &str, xz_magic: &[u8]) -> Vec<String> {
    let names: Vec<String> = (0..100).map(|n| format!("{prefix}{n:02}")).collect();
    for name in &names {
        fs::write(tree.join(format!("{name}.ko.xz")), xz_magic).unwrap();
    }
    fs::write(tree.join("modules.dep.bin"), dep_index(prefix)).unwrap();
    names
}

/// Returns an index with one node for the prefix, ten for the first digit and a hundred for the
/// second.
fn dep_index(prefix: &str) -> Vec<u8> {
    let mut file: Vec<u8> = HEADER.iter().flat_map(|word| word.to_be_bytes()).collect();
    let root_at = file.len();
    file.extend([0; 4]);
    let first = (0..10).map(|first| {
        let second: Vec<u32> = (0..10)
            .map(|second| {
                let at = offset(&file) | VALUES;
                let value = format!("{prefix}{first}{second}.ko.xz:\0");
                file.extend(1_u32.to_be_bytes());
                file.extend(0_u32.to_be_bytes());
                file.extend(value.as_bytes());
                at
            })
            .collect();
        let at = offset(&file) | CHILDREN;
        children(&mut file, &second);
        at
    });
    let first: Vec<u32> = first.collect();
    let root = offset(&file) | PREFIX | CHILDREN;
    file.extend(prefix.as_bytes());
    file.push(0);
    children(&mut file, &first);
    file[root_at..root_at + 4].copy_from_slice(&root.to_be_bytes());
    file
}

fn offset(file: &[u8]) -> u32 {
    u32::try_from(file.len()).unwrap()
}

/// Writes the ten digits, and the offset of the node of each.
fn children(file: &mut Vec<u8>, offsets: &[u32]) {
    file.extend([b'0', b'9']);
    file.extend(offsets.iter().flat_map(|offset| offset.to_be_bytes()));
}
