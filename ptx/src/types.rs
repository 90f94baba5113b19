//! The types that PTX instructions name.

/// A type suffix such as `.u32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    /// Bits without a meaning: their number.
    Bits(u32),
    /// Unsigned integers.
    Unsigned(u32),
    /// Signed integers.
    Signed(u32),
    /// IEEE floats of 16, 32 or 64 bits.
    Float(u32),
    /// bf16.
    Brain,
    /// Two f16 in 32 bits.
    FloatPair,
    /// Two bf16 in 32 bits.
    BrainPair,
    /// One bit.
    Predicate,
}

impl Type {
    /// Reads a suffix without its dot.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        let number = |rest: &str| rest.parse().ok().filter(|bits| [8, 16, 32, 64].contains(bits));
        match word {
            "pred" => Some(Self::Predicate),
            "bf16" => Some(Self::Brain),
            "bf16x2" => Some(Self::BrainPair),
            "f16x2" => Some(Self::FloatPair),
            _ => match word.split_at_checked(1)? {
                ("b", rest) => number(rest).map(Self::Bits),
                ("u", rest) => number(rest).map(Self::Unsigned),
                ("s", rest) => number(rest).map(Self::Signed),
                ("f", rest) => number(rest).filter(|bits| *bits > 8).map(Self::Float),
                _ => None,
            },
        }
    }

    /// Bits that a value takes.
    pub(crate) fn bits(self) -> u32 {
        match self {
            Self::Bits(bits) | Self::Unsigned(bits) | Self::Signed(bits) | Self::Float(bits) => bits,
            Self::Brain => 16,
            Self::FloatPair | Self::BrainPair => 32,
            Self::Predicate => 1,
        }
    }

    /// Bytes that a value takes in memory.
    pub(crate) fn bytes(self) -> usize {
        self.bits().div_ceil(8) as usize
    }

    /// Whether values are integers, or bits that can be read as such.
    pub(crate) fn is_integer(self) -> bool {
        matches!(self, Self::Bits(_) | Self::Unsigned(_) | Self::Signed(_))
    }

    /// Whether values are signed integers.
    pub(crate) fn is_signed(self) -> bool {
        matches!(self, Self::Signed(_))
    }

    /// The low bits that a value has.
    pub(crate) fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// A value's bits as a number, its sign extended if the type has one.
    pub(crate) fn integer(self, bits: u64) -> i128 {
        let value = bits & self.mask();
        let negative = self.is_signed() && value >> (self.bits() - 1) == 1;
        i128::from(value) - if negative { 1i128 << self.bits() } else { 0 }
    }
}
