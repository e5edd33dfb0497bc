//! PAX extended headers: records `LENGTH KEY=VALUE\n` that overrule the header that follows (pax(1), "pax Header Block").

use super::header::BadField;

/// What one extended header says of the entry after it.
#[derive(Clone, Debug, Default)]
pub(super) struct Extensions {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_target: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    /// Seconds and nanoseconds.
    pub(super) mtime: Option<(i64, u32)>,
    /// Full attribute names and values, from `SCHILY.xattr.NAME`.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The entry is stored sparsely in one of GNU's formats.
    pub(super) sparse: bool,
}

impl Extensions {
    /// Parses all records of an extended header's data.
    pub(super) fn parse(mut data: &[u8]) -> Result<Self, BadField> {
        let mut extensions = Self::default();
        while !data.is_empty() {
            let (key, value, rest) = record(data).ok_or(BadField("PAX record"))?;
            extensions.take(key, value)?;
            data = rest;
        }
        Ok(extensions)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), BadField> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            self.xattrs.push((name.to_vec(), value.to_vec()));
            return Ok(());
        }
        // An empty value takes an earlier one back.
        let number = |name| if value.is_empty() { Ok(None) } else { integer(value).map(Some).ok_or(BadField(name)) };
        match key {
            b"path" => self.path = (!value.is_empty()).then(|| value.to_vec()),
            b"linkpath" => self.link_target = (!value.is_empty()).then(|| value.to_vec()),
            b"size" => {
                let size = number("PAX size")?.map(u64::try_from).transpose();
                self.size = size.map_err(|_| BadField("PAX size"))?;
            }
            b"uid" => self.uid = number("PAX uid")?,
            b"gid" => self.gid = number("PAX gid")?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(timestamp(value).ok_or(BadField("PAX mtime"))?),
            _ if key.starts_with(b"GNU.sparse.") => self.sparse = true,
            _ => {}
        }
        Ok(())
    }
}

/// The first record's key and value, and what follows it.
fn record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = data.iter().take(20).position(|byte| *byte == b' ')?;
    let (digits, _) = data.split_at(space);
    let length = usize::try_from(integer(digits)?).ok()?;
    let (record, rest) = data.split_at_checked(length)?;
    let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    let (key, value) = body.split_at(equals);
    if key.is_empty() {
        return None;
    }
    Some((key, value.get(1..)?, rest))
}

fn integer(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Decimal seconds with an optional fraction, possibly negative.
fn timestamp(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let nanoseconds: u32 = format!("{fraction:0<9.9}").parse().ok()?;
    if !whole.starts_with('-') || nanoseconds == 0 {
        return Some((seconds, nanoseconds));
    }
    // -1.25 is 0.75 after second -2.
    Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read() {
        let data = b"12 path=a/b\n20 mtime=1700000.25\n11 size=12\n31 SCHILY.xattr.user.a=v\nal=ue\n";
        let extensions = Extensions::parse(data).unwrap();
        assert_eq!(extensions.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!(extensions.mtime, Some((1_700_000, 250_000_000)));
        assert_eq!(extensions.size, Some(12));
        assert_eq!(extensions.xattrs, [(b"user.a".to_vec(), b"v\nal=ue".to_vec())]);
    }

    #[test]
    fn damaged_records_are_refused() {
        for data in [
            &b"99 path=a\n"[..],
            b"5 a=b",
            b"9 path=ab\n",
            b"0 a=b\n",
            b"-7 a=b\n",
            b"5 =b\n",
            b"12 size=-100\n",
            b"18446744073709551616 a=b\n",
            b"path=a\n",
        ] {
            assert!(Extensions::parse(data).is_err(), "{}", String::from_utf8_lossy(data));
        }
    }

    #[test]
    fn times_before_1970_round_down() {
        assert_eq!(timestamp(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(timestamp(b"-1"), Some((-1, 0)));
        assert_eq!(timestamp(b"5.1234567891"), Some((5, 123_456_789)));
        assert_eq!(timestamp(b"nan"), None);
    }
}
