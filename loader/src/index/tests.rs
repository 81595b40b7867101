//! Tests of the index reader with files from depmod, and with hostile files.

use super::*;

const DEPENDENCIES: &[u8] = include_bytes!("../../tests/fixtures/modules/modules.dep.bin");
const DEPENDENCIES_TEXT: &str = include_str!("../../tests/fixtures/modules/modules.dep");
const ALIASES: &[u8] = include_bytes!("../../tests/fixtures/modules/modules.alias.bin");

fn texts(values: Vec<&[u8]>) -> Vec<String> {
    values
        .into_iter()
        .map(|value| String::from_utf8(value.to_vec()).unwrap())
        .collect()
}

fn matching(index: &Index, text: &str) -> Vec<String> {
    texts(index.matches(text.as_bytes()).unwrap())
}

#[test]
fn every_line_of_modules_dep_is_found_under_its_module() {
    let index = Index::parse(DEPENDENCIES.to_vec()).unwrap();
    let mut lines = 0;
    for line in DEPENDENCIES_TEXT.lines() {
        let path = line.split(':').next().unwrap();
        let file = path.rsplit('/').next().unwrap();
        let module = file.split('.').next().unwrap().replace('-', "_");
        let found = index.find(module.as_bytes()).unwrap().unwrap();
        assert_eq!(str::from_utf8(found).unwrap().trim_end(), line.trim_end());
        lines += 1;
    }
    assert!(lines > 30, "the fixture has only {lines} modules");
    for absent in ["", "i", "ib_cor", "ib_core_", "zzz", "[", "*"] {
        assert_eq!(index.find(absent.as_bytes()).unwrap(), None, "{absent:?}");
    }
}

#[test]
fn plain_and_wildcard_aliases_are_found() {
    let index = Index::parse(ALIASES.to_vec()).unwrap();
    assert_eq!(matching(&index, "xprtrdma"), ["rpcrdma"]);
    assert_eq!(matching(&index, "rdma_client_uverbs"), ["ib_uverbs"]);
    assert_eq!(matching(&index, "auxiliary:mlx5_core.rdma"), ["mlx5_ib"]);
    let connectx5 = "pci:v000015B3d00001017sv000015B3sd00000001bc02sc00i00";
    assert_eq!(matching(&index, connectx5), ["mlx5_core"]);
    assert!(matching(&index, "nosuch").is_empty());
    assert!(matching(&index, "").is_empty());
}

#[test]
fn a_truncated_index_gives_an_error_or_a_result_and_never_a_panic() {
    for end in 0..DEPENDENCIES.len() {
        if let Ok(index) = Index::parse(DEPENDENCIES[..end].to_vec()) {
            let _ = index.find(b"rdma_ucm");
            let _ = index.matches(b"rdma_ucm");
        }
    }
}

#[test]
fn a_flipped_byte_gives_an_error_or_a_result_and_never_a_panic() {
    for at in 0..DEPENDENCIES.len() {
        let mut bytes = DEPENDENCIES.to_vec();
        bytes[at] ^= 0xff;
        if let Ok(index) = Index::parse(bytes) {
            let _ = index.find(b"rdma_ucm");
            let _ = index.matches(b"rdma_ucm");
        }
    }
}

#[test]
fn an_unknown_magic_or_format_is_refused() {
    assert_eq!(Index::parse(Vec::new()).unwrap_err(), IndexError::Magic);
    let mut newer = DEPENDENCIES.to_vec();
    newer[5] = 3;
    assert_eq!(Index::parse(newer).unwrap_err(), IndexError::Version(3));
}

/// Returns a header and one node whose only child, for `*`, is the node itself.
fn endless() -> Vec<u8> {
    let mut bytes = [MAGIC.to_be_bytes(), 0x0002_0001u32.to_be_bytes()].concat();
    let itself = HAS_CHILDREN | 12;
    bytes.extend(itself.to_be_bytes());
    bytes.extend(*b"**");
    bytes.extend(itself.to_be_bytes());
    bytes
}

#[test]
fn a_node_that_is_its_own_child_ends_the_search() {
    let index = Index::parse(endless()).unwrap();
    assert_eq!(index.matches(b"zzz"), Err(IndexError::Corrupt));
    assert_eq!(index.find(b"***"), Ok(None));
}

#[test]
fn a_count_of_values_beyond_the_file_is_corrupt() {
    let mut bytes = [MAGIC.to_be_bytes(), 0x0002_0001u32.to_be_bytes()].concat();
    bytes.extend((HAS_VALUES | 12).to_be_bytes());
    bytes.extend(u32::MAX.to_be_bytes());
    bytes.extend(*b"\0\0\0\0value\0");
    let index = Index::parse(bytes).unwrap();
    assert_eq!(index.matches(b""), Err(IndexError::Corrupt));
    // `find` reads only the first value and never sees the rest.
    assert_eq!(index.find(b""), Ok(Some(&b"value"[..])));
}
