//! The canonical request of AWS Signature Version 4 ("Create a signed AWS API request" in the IAM user guide), from the request that
//! arrived. Written piece by piece into whatever hashes it: nothing is copied that is canonical already.

use http::request::Parts;

/// Writes method, path, query, `signed_headers` with their values, their list, and `payload_sha256` (hexadecimal).
pub(super) fn write(
    parts: &Parts,
    signed_headers: &str,
    payload_sha256: &[u8],
    put: &mut impl FnMut(&[u8]),
) {
    put(parts.method.as_str().as_bytes());
    put(b"\n");
    path(parts.uri.path(), put);
    put(b"\n");
    query(parts.uri.query().unwrap_or_default(), put);
    put(b"\n");
    for name in signed_headers.split(';') {
        put(name.as_bytes());
        let mut before: &[u8] = b":";
        for value in parts.headers.get_all(name) {
            put(before);
            folded(value.as_bytes(), put);
            before = b",";
        }
        put(b"\n");
    }
    put(b"\n");
    put(signed_headers.as_bytes());
    put(b"\n");
    put(payload_sha256);
}

/// Without empty and relative segments, and encoded once more than it was sent, as for every service but S3.
fn path(sent: &str, put: &mut impl FnMut(&[u8])) {
    let mut segments = Vec::new();
    for segment in sent.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    for segment in &segments {
        put(b"/");
        encoded(segment.as_bytes(), put);
    }
    if segments.is_empty() || sent.ends_with('/') {
        put(b"/");
    }
}

/// Names and values decoded, encoded in the one canonical way, and sorted by name, then by value.
fn query(sent: &str, put: &mut impl FnMut(&[u8])) {
    if sent.is_empty() {
        return;
    }
    let recoded = |text: &str| {
        let mut canonical = Vec::with_capacity(text.len());
        encoded(&decoded(text.as_bytes()), &mut |bytes| {
            canonical.extend_from_slice(bytes);
        });
        canonical
    };
    let mut parameters: Vec<(Vec<u8>, Vec<u8>)> = sent
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (recoded(name), recoded(value)))
        .collect();
    parameters.sort();
    let mut before: &[u8] = b"";
    for (name, value) in &parameters {
        put(before);
        put(name);
        put(b"=");
        put(value);
        before = b"&";
    }
}

/// Without spaces around, and with single ones within. Other white space stands as it is.
fn folded(value: &[u8], put: &mut impl FnMut(&[u8])) {
    let words = value.split(|byte| *byte == b' ');
    let mut before: &[u8] = b"";
    for word in words.filter(|word| !word.is_empty()) {
        put(before);
        put(word);
        before = b" ";
    }
}

/// Everything but the unreserved characters of RFC 3986 as `%XX`.
fn encoded(bytes: &[u8], put: &mut impl FnMut(&[u8])) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut rest = bytes;
    while !rest.is_empty() {
        let plain = rest.iter().take_while(|byte| is_unreserved(**byte)).count();
        put(&rest[..plain]);
        let Some(byte) = rest.get(plain) else {
            return;
        };
        put(&[
            b'%',
            HEX[usize::from(byte >> 4)],
            HEX[usize::from(byte & 0xf)],
        ]);
        rest = &rest[plain + 1..];
    }
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// `%XX` as the byte it stands for. A `+` is a plus, and a `%` that begins no escape is a per cent sign.
fn decoded(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let escape = match (first, after) {
            (b'%', [high, low, ..]) => hex_value(*high).zip(hex_value(*low)),
            _ => None,
        };
        let byte = escape.map_or(*first, |(high, low)| high << 4 | low);
        bytes.push(byte);
        rest = if escape.is_some() { &after[2..] } else { after };
    }
    bytes
}

fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}
