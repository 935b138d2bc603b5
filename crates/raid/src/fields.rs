//! Little-endian fields of the media formats: a writer that appends and a reader that
//! never reads past its end. The only place of this crate where values turn into bytes.

/// Appends fields to a byte vector.
#[derive(Default)]
pub(crate) struct Writer {
    pub bytes: Vec<u8>,
}

impl Writer {
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }
    pub fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }
    pub fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }
    pub fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
    /// A length byte and at most 255 bytes of UTF-8; longer text is cut at a character.
    pub fn text(&mut self, text: &str) {
        let mut end = text.len().min(255);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.u8(u8::try_from(end).expect("cut to 255"));
        self.raw(&text.as_bytes()[..end]);
    }
    /// Zeros up to `len_bytes`.
    pub fn pad_to(&mut self, len_bytes: usize) {
        assert!(self.bytes.len() <= len_bytes, "fields fit their structure");
        self.bytes.resize(len_bytes, 0);
    }
}

/// Takes fields from the front of a slice; `None` when it is too short.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }
    pub fn raw(&mut self, len_bytes: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len_bytes)?;
        self.rest = rest;
        Some(head)
    }
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.raw(N)?.try_into().ok()
    }
    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|bytes| bytes[0])
    }
    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
    pub fn text(&mut self) -> Option<String> {
        let len = self.u8()?;
        String::from_utf8(self.raw(usize::from(len))?.to_vec()).ok()
    }
}
