//! A choice among names, spelled byte by byte: the range of a sorted list that still fits.

/// Names in order, each with the number it has outside.
#[derive(Debug, Clone, Default)]
pub struct Names(Vec<(Box<[u8]>, u16)>);

/// What is still possible: names `from..to`, which agree in `depth` bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pick {
    from: u16,
    to: u16,
    pub depth: u16,
}

impl Names {
    pub fn new<'n>(names: impl IntoIterator<Item = &'n [u8]>) -> Self {
        let mut names: Vec<(Box<[u8]>, u16)> =
            (0..u16::MAX).zip(names).map(|(number, name)| (name.into(), number)).collect();
        names.sort();
        Self(names)
    }

    pub fn start(&self) -> Pick {
        Pick { from: 0, to: u16::try_from(self.0.len()).unwrap_or(u16::MAX), depth: 0 }
    }

    fn range(&self, pick: Pick) -> &[(Box<[u8]>, u16)] {
        self.0.get(usize::from(pick.from)..usize::from(pick.to)).unwrap_or_default()
    }

    /// The names with `byte` next, if one of them is `allowed`.
    pub fn step(&self, pick: Pick, byte: u8, allowed: impl Fn(u16) -> bool) -> Option<Pick> {
        let depth = usize::from(pick.depth);
        let range = self.range(pick);
        let start = range.iter().position(|(name, _)| name.get(depth) == Some(&byte))?;
        let length = range[start..].iter().take_while(|(name, _)| name.get(depth) == Some(&byte)).count();
        let from = pick.from + start as u16;
        let next = Pick { from, to: from + length as u16, depth: pick.depth + 1 };
        self.range(next).iter().any(|(_, number)| allowed(*number)).then_some(next)
    }

    /// The name that is complete here.
    pub fn exact(&self, pick: Pick) -> Option<u16> {
        let (name, number) = self.range(pick).first()?;
        (name.len() == usize::from(pick.depth)).then_some(*number)
    }
}
