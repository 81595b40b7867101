//! Fuzzes the decompression of module files. The first byte selects the format that the kernel
//! decompresses, and the format that the second part compresses with. The rest is the content of a
//! file, first as is, then compressed. A file that the kernel decompresses is passed unchanged. A
//! compressed file decompresses to its content. A truncated archive gives an error or the whole
//! content.
#![no_main]

use std::fs::File;
use std::io::{Read, Seek, Write};

use libfuzzer_sys::fuzz_target;
use loader::image::{Compression, MAX_LEN, for_kernel};
use rustix::fs::{MemfdFlags, memfd_create};

/// `MODULE_INIT_COMPRESSED_FILE` (`include/uapi/linux/module.h`).
const COMPRESSED_FILE: i32 = 4;

const FORMATS: [Compression; 4] = [
    Compression::None,
    Compression::Gzip,
    Compression::Xz,
    Compression::Zstd,
];

fn file(content: &[u8]) -> File {
    let mut file = File::from(memfd_create("input", MemfdFlags::CLOEXEC).unwrap());
    file.write_all(content).unwrap();
    file.rewind().unwrap();
    file
}

/// Returns the bytes that the kernel receives for a file with this content, and the flags.
fn given(content: &[u8], kernel: Compression) -> Option<(Vec<u8>, i32)> {
    let (mut given, flags) = for_kernel(file(content), kernel).ok()?;
    assert!(given.metadata().unwrap().len() <= MAX_LEN.max(content.len() as u64));
    given.rewind().unwrap();
    let mut bytes = Vec::new();
    given.read_to_end(&mut bytes).unwrap();
    Some((bytes, flags))
}

fn compressed(content: &[u8], format: Compression) -> Vec<u8> {
    match format {
        Compression::None => content.to_vec(),
        Compression::Gzip => {
            let fast = flate2::Compression::fast();
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), fast);
            gzip.write_all(content).unwrap();
            gzip.finish().unwrap()
        }
        Compression::Xz => {
            let options = lzma_rust2::XzOptions::with_preset(0);
            let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
            xz.write_all(content).unwrap();
            xz.finish().unwrap()
        }
        Compression::Zstd => {
            ruzstd::encoding::compress_to_vec(content, ruzstd::encoding::CompressionLevel::Fastest)
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, content)) = bytes.split_first() else {
        return;
    };
    let kernel = FORMATS[usize::from(first & 3)];
    let format = FORMATS[usize::from(first >> 2 & 3)];

    let found = Compression::of(content);
    if let Some((given, flags)) = given(content, kernel) {
        let as_it_is = found == Compression::None || found == kernel;
        assert!(!as_it_is || given == content);
        let expected = if as_it_is && found != Compression::None {
            COMPRESSED_FILE
        } else {
            0
        };
        assert_eq!(flags, expected, "{found:?} for a kernel with {kernel:?}");
    } else {
        assert!(found != Compression::None && found != kernel);
    }

    // Uncompressed content may look like an archive.
    if format != Compression::None || found == Compression::None {
        let archive = compressed(content, format);
        let whole = given(&archive, Compression::None);
        assert_eq!(whole, Some((content.to_vec(), 0)), "{format:?}");
        let cut = &archive[..archive.len() - archive.len().min(1 + usize::from(first >> 4))];
        if format != Compression::None && Compression::of(cut) == format {
            let rest = given(cut, Compression::None);
            assert!(rest.is_none() || rest == whole, "{format:?}");
        }
    }
});
