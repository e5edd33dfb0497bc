//! One 512-byte tar header: POSIX ustar, GNU and old V7 (POSIX.1-1988 and pax(1), "ustar Interchange Format").

/// Bytes of a header, and the unit in which entries are padded.
pub(super) const BLOCK_BYTES: usize = 512;

/// A header block, checked by nothing but its own checksum.
pub(super) struct Header<'a>(pub(super) &'a [u8; BLOCK_BYTES]);

/// A numeric field that is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadField(pub(super) &'static str);

impl Header<'_> {
    fn field(&self, start: usize, len: usize) -> &[u8] {
        self.0.get(start..start + len).unwrap_or_default()
    }

    fn text(&self, start: usize, len: usize) -> &[u8] {
        let field = self.field(start, len);
        field.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// The sum of all bytes, the checksum's own counted as spaces; some old writers summed signed bytes.
    pub(super) fn checksum_is_good(&self) -> bool {
        let Ok(expected) = number(self.field(148, 8)) else { return false };
        let bytes = || self.0.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte });
        let unsigned: i64 = bytes().map(i64::from).sum();
        let signed: i64 = bytes().map(|byte| i64::from(i8::from_ne_bytes([byte]))).sum();
        expected == unsigned || expected == signed
    }

    /// The name; POSIX splits long ones in two, GNU uses the second field otherwise.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = self.text(0, 100);
        let prefix = if self.field(257, 6) == b"ustar\0" { self.text(345, 155) } else { &[] };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link_target(&self) -> Vec<u8> {
        self.text(157, 100).to_vec()
    }

    pub(super) fn kind(&self) -> u8 {
        self.0.get(156).copied().unwrap_or_default()
    }

    pub(super) fn mode(&self) -> Result<u32, BadField> {
        // Some writers put the file type into the upper bits.
        self.number("mode", 100, 8).map(|mode| u32::try_from(mode & 0o7777).unwrap_or(0))
    }

    pub(super) fn uid(&self) -> Result<i64, BadField> {
        self.number("uid", 108, 8)
    }

    pub(super) fn gid(&self) -> Result<i64, BadField> {
        self.number("gid", 116, 8)
    }

    pub(super) fn size(&self) -> Result<u64, BadField> {
        self.number("size", 124, 12).and_then(|size| u64::try_from(size).map_err(|_| BadField("size")))
    }

    pub(super) fn mtime(&self) -> Result<i64, BadField> {
        self.number("mtime", 136, 12)
    }

    fn number(&self, name: &'static str, start: usize, len: usize) -> Result<i64, BadField> {
        number(self.field(start, len)).map_err(|()| BadField(name))
    }
}

/// Octal text, or GNU's base 256 if the top bit of the first byte is set.
fn number(field: &[u8]) -> Result<i64, ()> {
    match field {
        [first, rest @ ..] if first & 0x80 != 0 => {
            // The second bit is the sign of a two's complement number.
            let start = i128::from(first & 0x7f) - if first & 0x40 != 0 { 0x80 } else { 0 };
            let value = rest.iter().try_fold(start, |value, byte| {
                value.checked_mul(256).and_then(|value| value.checked_add(i128::from(*byte)))
            });
            value.and_then(|value| i64::try_from(value).ok()).ok_or(())
        }
        _ => {
            let text = field.split(|byte| *byte == 0).find(|part| !part.is_empty()).unwrap_or_default();
            let text = text.trim_ascii();
            if text.is_empty() {
                return Ok(0);
            }
            let text = std::str::from_utf8(text).map_err(|_| ())?;
            if text.starts_with('+') {
                return Err(());
            }
            i64::from_str_radix(text, 8).map_err(|_| ())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0"), Ok(0o644));
        assert_eq!(number(b"   644 \0"), Ok(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Ok(0));
        assert_eq!(number(b"77777777777\0"), Ok(0o77_777_777_777));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]), Ok(1 << 32));
        assert_eq!(number(&[0xff; 12]), Ok(-1));
        assert_eq!(number(&[0x80, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Err(()));
        assert_eq!(number(b"0000689\0"), Err(()));
        assert_eq!(number(b"00+0644\0"), Err(()));
        assert_eq!(number(b"+000644\0"), Err(()));
    }
}
