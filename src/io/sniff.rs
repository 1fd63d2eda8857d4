//! Identifies the kind of a file by its first bytes, for error messages.

/// The number of bytes needed to identify a file.
pub(crate) const HEAD: usize = 512;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileKind {
    /// A noun phrase that can follow "is".
    pub(crate) name: &'static str,
    /// How to obtain a safetensors file.
    pub(crate) advice: Option<&'static str>,
    /// Whether it is a text file.
    pub(crate) is_text: bool,
}

const fn binary(name: &'static str) -> FileKind {
    FileKind { name, advice: None, is_text: false }
}

const fn text(name: &'static str) -> FileKind {
    FileKind { name, advice: None, is_text: true }
}

impl FileKind {
    const fn but(self, advice: &'static str) -> Self {
        Self { advice: Some(advice), ..self }
    }
}

const FROM_TORCH: &str = "save the state dict with `safetensors.torch.save_file` in Python";
const FROM_NUMPY: &str = "save the arrays with `safetensors.numpy.save_file` in Python";

/// File kinds by their first bytes.
const MAGIC: [(&[u8], FileKind); 26] = [
    (b"\x89HDF\r\n\x1a\n", binary("an HDF5 file, as Keras writes (.h5)").but(FROM_NUMPY)),
    (b"\x93NUMPY", binary("a NumPy array").but(FROM_NUMPY)),
    (b"\x80\x02", binary("a Python pickle, as older versions of PyTorch write").but(FROM_TORCH)),
    (b"\x80\x03", binary("a Python pickle").but(FROM_TORCH)),
    (b"\x80\x04", binary("a Python pickle").but(FROM_TORCH)),
    (b"\x80\x05", binary("a Python pickle").but(FROM_TORCH)),
    (b"GGUF", binary("a GGUF file")),
    (b"\x1f\x8b", binary("compressed by gzip").but("decompress it first")),
    (b"\x28\xb5\x2f\xfd", binary("compressed by zstd").but("decompress it first")),
    (b"\xfd7zXZ\0", binary("compressed by xz").but("decompress it first")),
    (b"BZh", binary("compressed by bzip2").but("decompress it first")),
    (b"7z\xbc\xaf", binary("a 7z archive").but("decompress it first")),
    (b"\x89PNG", binary("a PNG image")),
    (b"\xff\xd8\xff", binary("a JPEG image")),
    (b"GIF8", binary("a GIF image")),
    (b"%PDF-", binary("a PDF document")),
    (b"\x7fELF", binary("a program")),
    (b"\xcf\xfa\xed\xfe", binary("a program")),
    (b"MZ\x90\0", binary("a program")),
    (b"SQLite format 3\0", binary("an SQLite database")),
    (b"\xff\xfe", text("text in UTF-16")),
    (b"\xfe\xff", text("text in UTF-16")),
    (b"<svg", SVG),
    (b"<!DOCTYPE html", HTML),
    (b"<html", HTML),
    (
        b"version https://git-lfs",
        text("a pointer of Git LFS to the file").but("fetch the file itself with `git lfs pull`"),
    ),
];

const SVG: FileKind = text("an SVG image")
    .but("`refrain train` writes the model to its `--checkpoint`, refrain.safetensors, and the SVG is the loss curve");
const HTML: FileKind = text("an HTML page").but("a download may have failed: open the page to see why");
/// Kinds of zip archives by a part of the name of their first entry.
const ZIPS: [(&[u8], FileKind); 4] = [
    (b"data.pkl", binary("a PyTorch file of `torch.save` (.pt)").but(FROM_TORCH)),
    (b"metadata.json", binary("a Keras model (.keras)").but(FROM_NUMPY)),
    (b"config.json", binary("a Keras model (.keras)").but(FROM_NUMPY)),
    (b".npy", binary("an archive of NumPy arrays (.npz)").but(FROM_NUMPY)),
];

/// Not an error by itself: such a file is incomplete if it is rejected.
pub(crate) const SAFETENSORS: FileKind = binary("a safetensors file");

/// Returns the kind of a file that starts with `head`, or `None` if it is unknown. `head` is the first [`HEAD`] bytes, or
/// all of a shorter file.
pub(crate) fn sniff(head: &[u8]) -> Option<FileKind> {
    if head.is_empty() {
        return Some(text("empty"));
    }
    if head.starts_with(b"PK\x03\x04") {
        let name = head.get(30..).unwrap_or_default();
        let name = &name[..name.len().min(usize::from(head.get(26).copied().unwrap_or(0)))];
        let known = ZIPS.into_iter().find(|(part, _)| name.windows(part.len()).any(|found| found == *part));
        return Some(known.map_or(binary("a zip archive"), |(_, kind)| kind));
    }
    if let Some((_, kind)) = MAGIC.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Some(*kind);
    }
    if is_onnx(head) {
        return Some(
            binary("an ONNX model").but("store the tensors of its recurrent nodes in a safetensors file"),
        );
    }
    if head.len() > 8 && head[8] == b'{' && head[4..8] == [0; 4] {
        return Some(SAFETENSORS);
    }
    if head.iter().all(|&byte| byte == 0) {
        return Some(binary("full of zeros").but("it was never written, or only partly"));
    }
    written(head)
}

/// The kind of a text file.
fn written(head: &[u8]) -> Option<FileKind> {
    let whole = match std::str::from_utf8(head) {
        Ok(text) => text,
        // `head` may end within a character.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    if whole.is_empty() || whole.chars().any(|character| character.is_control() && !character.is_whitespace())
    {
        return None;
    }
    let start = whole.trim_start_matches('\u{feff}').trim_start();
    Some(match start.as_bytes() {
        [b'{' | b'[', ..] => text("JSON"),
        _ if start.starts_with("<?xml") && start.contains("<svg") => SVG,
        _ if start.starts_with("<?xml") => text("XML"),
        _ => text("text"),
    })
}

/// Whether this is a protobuf message like an ONNX model: field 1 is the version of the format, a small number, followed by
/// another field of `ModelProto` with a length.
fn is_onnx(head: &[u8]) -> bool {
    matches!(head, [0x08, 1..=32, 0x12 | 0x1a | 0x22 | 0x32 | 0x3a | 0x42, ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zip(name: &str) -> Vec<u8> {
        let mut head = b"PK\x03\x04".to_vec();
        head.resize(26, 0);
        head.extend([name.len() as u8, 0, 0, 0]);
        head.extend(name.as_bytes());
        head.extend([0x80, 2]);
        head
    }

    #[test]
    fn files_are_told_apart_by_their_first_bytes() {
        let torch = zip("archive/data.pkl");
        let (keras, arrays, other) = (zip("metadata.json"), zip("weights.npy"), zip("notes.txt"));
        for (head, expected) in [
            (b"".as_slice(), "empty"),
            (b"<svg width=\"900\"", "an SVG image"),
            (b"<?xml version=\"1.0\"?>\n<svg", "an SVG image"),
            (b"<?xml version=\"1.0\"?>", "XML"),
            (b"<!DOCTYPE html>", "an HTML page"),
            (&torch, "a PyTorch file of `torch.save` (.pt)"),
            (&keras, "a Keras model (.keras)"),
            (&arrays, "an archive of NumPy arrays (.npz)"),
            (&other, "a zip archive"),
            (b"PK\x03\x04", "a zip archive"),
            (b"\x89HDF\r\n\x1a\n\0", "an HDF5 file, as Keras writes (.h5)"),
            (b"\x08\x08\x12\x07pytorch", "an ONNX model"),
            (b"\x80\x02\x8a\nl\xfc", "a Python pickle, as older versions of PyTorch write"),
            (b"\x1f\x8b\x08\0", "compressed by gzip"),
            (b"\xc8\0\0\0\0\0\0\0{\"a\":", "a safetensors file"),
            (b"\0\0\0\0", "full of zeros"),
            (b"{\"version\": 1}", "JSON"),
            (b"  [1, 2]", "JSON"),
            (b"\xff\xfea\0b\0", "text in UTF-16"),
            ("caf\u{e9}\r\n\tau lait".as_bytes(), "text"),
            (b"caf\xc3", "text"),
            (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS to the file"),
        ] {
            assert_eq!(sniff(head).map(|kind| kind.name), Some(expected), "{head:?}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        for head in [
            b"\xff\xff\xff\xff".as_slice(),
            b"\x01\x02\x03",
            b"caf\xe9 au lait",
            b"a\x1b[2J",
            b"{\0\0\0\0\0\0\0",
        ] {
            assert_eq!(sniff(head), None, "{head:?}");
        }
    }
}
