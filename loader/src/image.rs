//! A module file in the form that the kernel accepts: still compressed if the kernel can decompress
//! it, decompressed here only if it cannot. Must never use more than a bounded amount of memory,
//! whatever size a file claims to decompress to.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{MemfdFlags, memfd_create};

/// `MODULE_INIT_COMPRESSED_FILE` (`include/uapi/linux/module.h`).
const COMPRESSED_FILE: i32 = 4;
/// The maximum decompressed size of a file, in bytes. Debian's largest module has 20 MB.
pub const MAX_LEN: u64 = 256 << 20;

/// The largest dictionary that an xz file may request, in KiB. Debian's modules request one MiB.
const MAX_DICTIONARY_KIB: u32 = 256 << 10;

/// The compression of a file, by its content and not by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// No compression.
    None,
    /// `.gz`
    Gzip,
    /// `.xz`
    Xz,
    /// `.zst`
    Zstd,
}

impl Compression {
    /// Detects the compression from the first bytes of a file.
    #[must_use]
    pub fn of(start: &[u8]) -> Self {
        match start {
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0x1f, 0x8b, ..] => Self::Gzip,
            _ => Self::None,
        }
    }

    /// Returns the format that the running kernel decompresses itself (`/sys/module/compression`).
    #[must_use]
    pub fn of_kernel(sysfs: &Path) -> Self {
        let text = fs::read_to_string(sysfs.join("module/compression"));
        match text.as_deref().map(str::trim_end) {
            Ok("gzip") => Self::Gzip,
            Ok("xz") => Self::Xz,
            Ok("zstd") => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// Returns the file to pass to the kernel, and its flags.
///
/// # Errors
/// Fails if the file cannot be read, or if its content is not what its first bytes indicate.
pub fn for_kernel(file: File, kernel: Compression) -> io::Result<(File, i32)> {
    let mut start = [0; 6];
    let len = file.read_at(&mut start, 0)?;
    let compression = Compression::of(start.get(..len).unwrap_or_default());
    if compression == Compression::None {
        Ok((file, 0))
    } else if compression == kernel {
        Ok((file, COMPRESSED_FILE))
    } else {
        Ok((decompressed(file, compression)?, 0))
    }
}

/// Returns an anonymous file with the decompressed content of `file`.
fn decompressed(file: File, compression: Compression) -> io::Result<File> {
    let mut content: Box<dyn Read> = match compression {
        Compression::None => Box::new(file),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Compression::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(
            file,
            true,
            MAX_DICTIONARY_KIB,
        )),
        Compression::Zstd => Box::new(
            ruzstd::decoding::StreamingDecoder::new(file)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?,
        ),
    };
    let mut memory = File::from(memfd_create("module", MemfdFlags::CLOEXEC)?);
    let mut piece = vec![0; 1 << 16];
    let mut len = 0;
    loop {
        let read = content.read(&mut piece)?;
        if read == 0 {
            return Ok(memory);
        }
        len += read as u64;
        if len > MAX_LEN {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        memory.write_all(piece.get(..read).unwrap_or_default())?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a file in each format, all with the same content.
    fn files() -> [(Compression, Vec<u8>); 4] {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"module").unwrap();
        let zstd = ruzstd::encoding::compress_to_vec(
            &b"module"[..],
            ruzstd::encoding::CompressionLevel::Fastest,
        );
        // printf module | xz
        let xz = b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4F\x02\0!\x01\x16\0\0\0t/\xe5\xa3\x01\0\x05module\
                   \0\0\0\x34\x50\x33\x07\x72\xfc\x7c\xbd\0\x01\x1e\x06\xc1\x2f\xa4\x1d\x1f\xb6\
                   \xf3\x7d\x01\0\0\0\0\x04YZ"
            .to_vec();
        [
            (Compression::None, b"module".to_vec()),
            (Compression::Gzip, gzip.finish().unwrap()),
            (Compression::Xz, xz),
            (Compression::Zstd, zstd),
        ]
    }

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        file
    }

    fn content(mut file: File) -> Vec<u8> {
        let mut content = Vec::new();
        io::Seek::rewind(&mut file).unwrap();
        file.read_to_end(&mut content).unwrap();
        content
    }

    #[test]
    fn a_file_that_the_kernel_decompresses_is_passed_unchanged() {
        for (compression, bytes) in files() {
            let (given, flags) = for_kernel(file(&bytes), compression).unwrap();
            let expected = if compression == Compression::None {
                0
            } else {
                4
            };
            assert_eq!(flags, expected, "{compression:?}");
            assert_eq!(content(given), bytes);
        }
    }

    #[test]
    fn a_file_that_the_kernel_does_not_decompress_is_decompressed() {
        for (compression, bytes) in files() {
            let (given, flags) = for_kernel(file(&bytes), Compression::None).unwrap();
            assert_eq!(flags, 0);
            assert_eq!(content(given), b"module", "{compression:?}");
        }
    }

    #[test]
    fn a_truncated_or_invalid_archive_is_an_error() {
        for (compression, bytes) in files() {
            for end in 6..bytes.len().saturating_sub(1) {
                let cut = for_kernel(file(&bytes[..end]), Compression::None);
                assert!(
                    cut.is_err() || compression == Compression::None,
                    "{compression:?} cut at {end}"
                );
            }
        }
        assert!(for_kernel(file(b"\xfd7zXZ\0 but no"), Compression::None).is_err());
    }

    #[test]
    fn an_archive_that_expands_beyond_the_limit_is_an_error() {
        let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        let zeros = vec![0; 1 << 20];
        for _ in 0..=MAX_LEN >> 20 {
            bomb.write_all(&zeros).unwrap();
        }
        let error = for_kernel(file(&bomb.finish().unwrap()), Compression::None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}
