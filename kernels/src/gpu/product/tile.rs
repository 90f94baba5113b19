//! Sizes of tiles, by the output's shape and the device.

/// Sizes of a tile. The rows times columns over those of a unit are the units of a cube.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tile {
    /// Rows and columns of the output that a cube computes.
    pub(super) cube: [usize; 2],
    /// Rows and columns that one of its units computes.
    pub(super) unit: [usize; 2],
    /// Inner indices that are in shared memory at one time.
    pub(super) depth: usize,
}

impl Tile {
    /// For outputs of at least a tile each way.
    const SQUARE: Self = Self { cube: [64, 64], unit: [4, 4], depth: 16 };
    /// For few columns: the rank of an adapter.
    const NARROW: Self = Self { cube: [64, 16], unit: [4, 1], depth: 16 };
    /// For few rows.
    const FLAT: Self = Self { cube: [16, 64], unit: [1, 4], depth: 16 };

    /// A processor that plays a device fetches each lane's element from shared memory by itself, which takes as long as
    /// a dozen products: its units hold more of the output. With 16 x 16 elements a unit, lavapipe compiles for 10 s.
    const SOFTWARE_SQUARE: Self = Self { cube: [64, 64], unit: [8, 8], depth: 16 };
    const SOFTWARE_NARROW: Self = Self { cube: [64, 16], unit: [8, 2], depth: 16 };
    const SOFTWARE_FLAT: Self = Self { cube: [16, 64], unit: [2, 8], depth: 16 };

    /// The tile for an output of so many rows and columns.
    pub(super) fn of([rows, columns]: [usize; 2], is_software: bool) -> Self {
        let [square, narrow, flat] = if is_software {
            [Self::SOFTWARE_SQUARE, Self::SOFTWARE_NARROW, Self::SOFTWARE_FLAT]
        } else {
            [Self::SQUARE, Self::NARROW, Self::FLAT]
        };
        match (rows <= 16, columns <= 16) {
            (_, true) => narrow,
            (true, false) => flat,
            (false, false) => square,
        }
    }

    /// Units of a cube, down and across.
    pub(super) fn units(self) -> [usize; 2] {
        [self.cube[0] / self.unit[0], self.cube[1] / self.unit[1]]
    }
}
