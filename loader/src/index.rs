//! depmod's binary index files (`modules.dep.bin` and its siblings; kmod's
//! `libkmod/libkmod-index.c`): a trie of keys with values, numbers in big-endian order.
//!
//! Pure, and written for hostile bytes: every offset is checked, and the work of one search is
//! bounded. Must never follow a reference without counting it.

use std::ffi::CStr;

use crate::alias;

const MAGIC: u32 = 0xB007_F457;
const MAJOR_VERSION: u32 = 2;
/// The high bits of a reference to a node show which parts the node has.
const HAS_PREFIX: u32 = 0x8000_0000;
const HAS_VALUES: u32 = 0x4000_0000;
const HAS_CHILDREN: u32 = 0x2000_0000;
const OFFSET: u32 = 0x0fff_ffff;

/// The limit on the work of one search: nodes, values, and bytes of keys. Debian's largest index
/// has a tenth of that in total.
const MAX_WORK: usize = 1 << 24;
/// The longest key that a search builds, in bytes, as in modprobe.
const MAX_KEY_LEN: usize = 4096;

/// The reason that a file is not a usable index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// The file does not begin like an index.
    #[error("it is not a depmod index")]
    Magic,
    /// The file has a newer or older format.
    #[error("it has format {0}, not {MAJOR_VERSION}")]
    Version(u32),
    /// A reference or a length in the file is out of bounds.
    #[error("it is corrupt")]
    Corrupt,
}

/// An index file in memory.
#[derive(Clone, Debug)]
pub struct Index {
    bytes: Vec<u8>,
    root: u32,
}

/// The parts of one node.
#[derive(Clone, Copy)]
struct Node<'i> {
    prefix: &'i [u8],
    first_child: u8,
    /// References to the children, four bytes each; 0 for a missing child.
    children: &'i [u8],
    /// The position of the values, if there are any.
    values: Option<usize>,
}

impl Node<'_> {
    fn child(&self, byte: u8) -> Option<u32> {
        let slot = usize::from(byte.checked_sub(self.first_child)?);
        self.child_at(slot)
    }

    fn child_at(&self, slot: usize) -> Option<u32> {
        let reference = u32_at(self.children, slot.checked_mul(4)?)?;
        (reference & OFFSET != 0).then_some(reference)
    }
}

/// A value and its priority. A lower priority comes first.
type Value<'i> = (u32, &'i [u8]);

impl Index {
    /// Parses a whole index file.
    ///
    /// # Errors
    /// Fails if the header is not that of an index in a supported format.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, IndexError> {
        if u32_at(&bytes, 0) != Some(MAGIC) {
            return Err(IndexError::Magic);
        }
        let version = u32_at(&bytes, 4).ok_or(IndexError::Corrupt)?;
        if version >> 16 != MAJOR_VERSION {
            return Err(IndexError::Version(version >> 16));
        }
        let root = u32_at(&bytes, 8).ok_or(IndexError::Corrupt)?;
        Ok(Self { bytes, root })
    }

    /// Returns the first value of exactly `key`.
    ///
    /// # Errors
    /// Fails if the path to the key is corrupt.
    pub fn find(&self, key: &[u8]) -> Result<Option<&[u8]>, IndexError> {
        let mut reference = self.root;
        let mut rest = key;
        loop {
            let node = self.node(reference)?;
            let Some(after) = rest.strip_prefix(node.prefix) else {
                return Ok(None);
            };
            let Some((&byte, after)) = after.split_first() else {
                return self.first_value(&node);
            };
            match node.child(byte) {
                Some(child) => reference = child,
                None => return Ok(None),
            }
            rest = after;
        }
    }

    /// Returns the values of each key that matches `text` as an `fnmatch(3)` pattern, sorted by
    /// priority. Of equal priorities, the last one found comes first, as in libkmod.
    ///
    /// # Errors
    /// Fails if a node that must be visited is corrupt, or if there are too many.
    pub fn matches(&self, text: &[u8]) -> Result<Vec<&[u8]>, IndexError> {
        let mut search = Search {
            index: self,
            work: 0,
            found: Vec::new(),
        };
        search.descend(text)?;
        let mut found = search.found;
        found.reverse();
        found.sort_by_key(|(priority, _)| *priority);
        Ok(found.into_iter().map(|(_, value)| value).collect())
    }

    fn node(&self, reference: u32) -> Result<Node<'_>, IndexError> {
        let mut at = (reference & OFFSET) as usize;
        let mut node = Node {
            prefix: &[],
            first_child: 0,
            children: &[],
            values: None,
        };
        if reference & HAS_PREFIX != 0 {
            node.prefix = self.string(at)?;
            at += node.prefix.len() + 1;
        }
        if reference & HAS_CHILDREN != 0 {
            let range = self.bytes.get(at..).and_then(|rest| rest.get(..2));
            let Some(&[first, last]) = range else {
                return Err(IndexError::Corrupt);
            };
            if first > last || last >= 128 {
                return Err(IndexError::Corrupt);
            }
            let len = (usize::from(last - first) + 1) * 4;
            at += 2;
            node.first_child = first;
            node.children = self.bytes.get(at..at + len).ok_or(IndexError::Corrupt)?;
            at += len;
        }
        if reference & HAS_VALUES != 0 {
            node.values = Some(at);
        }
        Ok(node)
    }

    fn first_value(&self, node: &Node<'_>) -> Result<Option<&[u8]>, IndexError> {
        let Some(at) = node.values else {
            return Ok(None);
        };
        match u32_at(&self.bytes, at).ok_or(IndexError::Corrupt)? {
            0 => Ok(None),
            // The priority precedes the value.
            _ => self.string(at + 8).map(Some),
        }
    }

    /// Returns the bytes from `at` to the next NUL.
    fn string(&self, at: usize) -> Result<&[u8], IndexError> {
        let rest = self.bytes.get(at..).ok_or(IndexError::Corrupt)?;
        let string = CStr::from_bytes_until_nul(rest).map_err(|_| IndexError::Corrupt)?;
        Ok(string.to_bytes())
    }
}

/// A search for the patterns that match a text.
struct Search<'i> {
    index: &'i Index,
    work: usize,
    found: Vec<Value<'i>>,
}

impl<'i> Search<'i> {
    /// Follows `text` literally, and searches each pattern that begins on the way.
    fn descend(&mut self, text: &[u8]) -> Result<(), IndexError> {
        let mut reference = self.index.root;
        let mut rest = text;
        loop {
            let node = self.visit(reference)?;
            for (at, byte) in node.prefix.iter().enumerate() {
                if alias::is_wildcard(*byte) {
                    let pattern = node.prefix.get(at..).unwrap_or_default();
                    return self.collect(node, pattern, rest);
                }
                match rest.split_first() {
                    Some((first, after)) if first == byte => rest = after,
                    _ => return Ok(()),
                }
            }
            for wildcard in *b"*?[" {
                if let Some(child) = node.child(wildcard) {
                    let child = self.visit(child)?;
                    let pattern = [&[wildcard], child.prefix].concat();
                    self.collect(child, &pattern, rest)?;
                }
            }
            let Some((&byte, after)) = rest.split_first() else {
                return self.keep(&node);
            };
            // A wildcard in the text is an ordinary byte here: a pattern that was searched above is
            // found a second time, as in libkmod.
            match node.child(byte) {
                Some(child) => reference = child,
                None => return Ok(()),
            }
            rest = after;
        }
    }

    /// Collects the values of each key below `node` that matches `text`, children first. `pattern`
    /// is the key so far, from its first wildcard on, including the prefix of `node`.
    fn collect(&mut self, node: Node<'i>, pattern: &[u8], text: &[u8]) -> Result<(), IndexError> {
        let mut key = pattern.to_vec();
        // An explicit stack, because the depth of the trie is untrusted. Each entry is a node, its
        // next child, and the length of the key without the node.
        let mut open = vec![(node, 0, 0)];
        while let Some((node, slot, len)) = open.pop() {
            if slot >= node.children.len() / 4 {
                if node.values.is_some() {
                    self.count(key.len())?;
                    if alias::matches(&key, text) {
                        self.keep(&node)?;
                    }
                }
                key.truncate(len);
                continue;
            }
            open.push((node, slot + 1, len));
            if let Some(child) = node.child_at(slot) {
                let child = self.visit(child)?;
                let slot = u8::try_from(slot).unwrap_or(u8::MAX);
                open.push((child, 0, key.len()));
                key.push(node.first_child.saturating_add(slot));
                key.extend_from_slice(child.prefix);
                if key.len() > MAX_KEY_LEN {
                    return Err(IndexError::Corrupt);
                }
            }
        }
        Ok(())
    }

    fn keep(&mut self, node: &Node<'i>) -> Result<(), IndexError> {
        let Some(mut at) = node.values else {
            return Ok(());
        };
        let count = u32_at(&self.index.bytes, at).ok_or(IndexError::Corrupt)?;
        at += 4;
        for _ in 0..count {
            let priority = u32_at(&self.index.bytes, at).ok_or(IndexError::Corrupt)?;
            let value = self.index.string(at + 4)?;
            self.count(1 + value.len())?;
            at += 4 + value.len() + 1;
            self.found.push((priority, value));
        }
        Ok(())
    }

    fn visit(&mut self, reference: u32) -> Result<Node<'i>, IndexError> {
        let node = self.index.node(reference)?;
        self.count(1 + node.prefix.len())?;
        Ok(node)
    }

    fn count(&mut self, work: usize) -> Result<(), IndexError> {
        self.work += work;
        if self.work > MAX_WORK {
            return Err(IndexError::Corrupt);
        }
        Ok(())
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(four.try_into().ok()?))
}

#[cfg(test)]
mod tests;
