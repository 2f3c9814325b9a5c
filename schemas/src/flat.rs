//! The datum of a flat record: its fields in the order of the schema, in Avro's binary encoding.
//!
//! apache-avro looks up every field by name, and took several times as long on the hottest path of the system
//! (`tests/speed.rs` prints both). The contract allows only flat records of strings, ints, longs and optional ones, which
//! need only this small encoder. `tests/avro_agrees.rs` compares every message with apache-avro byte by byte. Records of
//! other versions are resolved by apache-avro (see [`crate::codec`]).

use std::borrow::Cow;

use thiserror::Error;

/// The bytes are not a valid datum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FlatError {
    /// The input ends inside a field.
    #[error("the datum ends inside a field")]
    Short,
    /// A number is longer than 64 bits, or does not fit an int.
    #[error("a number is out of range")]
    Number,
    /// A length is negative or exceeds the rest of the datum.
    #[error("a string is longer than the rest of the datum")]
    Length,
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    Utf8,
    /// The branch of an optional field is neither 0 nor 1.
    #[error("an optional field has an unknown branch")]
    Branch,
}

/// A flat record or one of its fields. What is read may borrow from the input, which lives for `'a`.
pub trait Datum<'a>: Sized {
    /// Appends the encoding.
    fn write(&self, out: &mut Vec<u8>);
    /// Reads a datum, and advances `input` past it.
    fn read(input: &mut &'a [u8]) -> Result<Self, FlatError>;
}

impl Datum<'_> for i64 {
    fn write(&self, out: &mut Vec<u8>) {
        let mut zigzag = ((self << 1) ^ (self >> 63)).cast_unsigned();
        while zigzag > 0x7f {
            out.push((zigzag as u8) | 0x80);
            zigzag >>= 7;
        }
        out.push(zigzag as u8);
    }

    fn read(input: &mut &[u8]) -> Result<Self, FlatError> {
        let mut zigzag = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = input.split_first().ok_or(FlatError::Short)?;
            *input = rest;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(FlatError::Number);
            }
            zigzag |= bits << shift;
            if byte < 0x80 {
                return Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed());
            }
        }
        Err(FlatError::Number)
    }
}

impl Datum<'_> for i32 {
    fn write(&self, out: &mut Vec<u8>) {
        i64::from(*self).write(out);
    }

    fn read(input: &mut &[u8]) -> Result<Self, FlatError> {
        Self::try_from(i64::read(input)?).map_err(|_| FlatError::Number)
    }
}

impl<'a> Datum<'a> for Cow<'a, str> {
    fn write(&self, out: &mut Vec<u8>) {
        (self.len() as i64).write(out);
        out.extend_from_slice(self.as_bytes());
    }

    fn read(input: &mut &'a [u8]) -> Result<Self, FlatError> {
        read_text(input).map(Cow::Borrowed)
    }
}

impl Datum<'_> for String {
    fn write(&self, out: &mut Vec<u8>) {
        Cow::Borrowed(self.as_str()).write(out);
    }

    fn read(input: &mut &[u8]) -> Result<Self, FlatError> {
        read_text(input).map(str::to_owned)
    }
}

fn read_text<'a>(input: &mut &'a [u8]) -> Result<&'a str, FlatError> {
    // Compared with the rest of the input before anything is allocated: a length of 2^60 costs nothing.
    let length = usize::try_from(i64::read(input)?).map_err(|_| FlatError::Length)?;
    let (text, rest) = input.split_at_checked(length).ok_or(FlatError::Length)?;
    *input = rest;
    str::from_utf8(text).map_err(|_| FlatError::Utf8)
}

/// `["null", T]`: branch 0, or branch 1 and the value.
impl<'a, T: Datum<'a>> Datum<'a> for Option<T> {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            None => out.push(0),
            Some(value) => {
                out.push(2);
                value.write(out);
            }
        }
    }

    fn read(input: &mut &'a [u8]) -> Result<Self, FlatError> {
        match i64::read(input)? {
            0 => Ok(None),
            1 => T::read(input).map(Some),
            _ => Err(FlatError::Branch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a, T: Datum<'a>>(mut bytes: &'a [u8]) -> Result<T, FlatError> {
        T::read(&mut bytes)
    }

    #[test]
    fn numbers_of_every_length_round_trip() {
        let edges = (0..64).flat_map(|bit| {
            let n = 1_i64 << bit;
            [n, n.wrapping_sub(1), n.wrapping_neg(), !n]
        });
        for n in edges {
            let mut out = Vec::new();
            n.write(&mut out);
            assert_eq!(read::<i64>(&out), Ok(n));
        }
    }

    #[test]
    fn numbers_are_encoded_as_in_the_specification() {
        // https://avro.apache.org/docs/1.12.0/specification/#primitive-types-1
        for (n, bytes) in [(0, vec![0]), (-1, vec![1]), (1, vec![2]), (-64, vec![0x7f]), (64, vec![0x80, 1])]
        {
            let mut out = Vec::new();
            i64::write(&n, &mut out);
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn invalid_numbers_are_rejected() {
        assert_eq!(read::<i64>(&[]), Err(FlatError::Short));
        assert_eq!(read::<i64>(&[0x80]), Err(FlatError::Short));
        assert_eq!(read::<i64>(&[0xff; 11]), Err(FlatError::Number));
        assert_eq!(
            read::<i64>(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]),
            Err(FlatError::Number)
        );
        let mut long = Vec::new();
        (i64::from(i32::MAX) + 1).write(&mut long);
        assert_eq!(read::<i32>(&long), Err(FlatError::Number));
    }

    #[test]
    fn an_invalid_length_allocates_nothing() {
        for length in [1, 1 << 40, i64::MAX, -1, i64::MIN] {
            let mut out = Vec::new();
            length.write(&mut out);
            assert_eq!(read::<String>(&out), Err(FlatError::Length), "{length}");
        }
    }

    #[test]
    fn text_that_is_not_utf8_and_unknown_branches_are_rejected() {
        assert_eq!(read::<String>(&[4, 0xc3, 0x28]), Err(FlatError::Utf8));
        assert_eq!(read::<Option<i64>>(&[4, 0]), Err(FlatError::Branch));
        assert_eq!(read::<Option<i64>>(&[1, 0]), Err(FlatError::Branch));
    }
}
