//! Protobuf's wire format: numbered fields, each a number or a row of bytes. Pure.

/// A message, read field by field: (number, value). Reading ends after the first error.
#[derive(Debug)]
pub(super) struct Message<'a>(pub(super) &'a [u8]);

/// The value of a field.
#[derive(Debug)]
pub(super) enum Data<'a> {
    /// A varint, or eight or four bytes.
    Number(u64),
    /// A text, bytes, or a message.
    Bytes(&'a [u8]),
}

impl<'a> Data<'a> {
    pub(super) fn bytes(&self) -> Result<&'a [u8], String> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) => Err("a number stands where bytes should".to_owned()),
        }
    }

    pub(super) fn number(&self) -> Result<i64, String> {
        match self {
            // Negative numbers are written as their two's complement.
            Self::Number(number) => Ok(number.cast_signed()),
            Self::Bytes(_) => Err("bytes stand where a number should".to_owned()),
        }
    }
}

impl<'a> Iterator for Message<'a> {
    type Item = Result<(u64, Data<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or_else(|| "the body is broken off or is no protobuf".to_owned()))
    }
}

impl<'a> Message<'a> {
    fn field(&mut self) -> Option<(u64, Data<'a>)> {
        let tag = self.varint()?;
        let data = match tag & 7 {
            0 => Data::Number(self.varint()?),
            1 => Data::Number(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Data::Bytes(self.take(length)?)
            }
            5 => Data::Number(u64::from(u32::from_le_bytes(self.take(4)?.try_into().ok()?))),
            _ => return None,
        };
        Some((tag >> 3, data))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?.first().copied()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}
