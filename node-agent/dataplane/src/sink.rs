//! Where operations go: the kernel's maps, or maps in memory that keep the same rules.

use std::convert::Infallible;

use crate::diff::Operation;
use crate::image::MapImage;

/// Maps that can be changed and read back.
pub trait MapSink {
    /// What may go wrong.
    type Error;

    /// Carries out one operation.
    fn write(&mut self, operation: &Operation) -> Result<(), Self::Error>;

    /// Carries out operations in order. After an error the maps hold what the operations before it made of them, and
    /// maybe some of a run of equal operations after it.
    fn write_all(&mut self, operations: &[Operation]) -> Result<(), Self::Error> {
        operations.iter().try_for_each(|operation| self.write(operation))
    }

    /// Reads everything back.
    fn observe(&self) -> Result<MapImage, Self::Error>;
}

/// Maps in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryMaps {
    /// What they hold.
    pub image: MapImage,
}

impl MapSink for MemoryMaps {
    type Error = Infallible;

    fn write(&mut self, operation: &Operation) -> Result<(), Infallible> {
        let image = &mut self.image;
        match operation.clone() {
            Operation::PutName(number, name) => drop(image.names.insert(number, name)),
            Operation::PutSet(id, set) => drop(image.sets.insert(id, set)),
            Operation::PutRange(range) => drop(image.ranges.insert(range)),
            Operation::PutVip(key, value) => drop(image.vips.insert(key, value)),
            Operation::DeleteVip(key) => drop(image.vips.remove(&key)),
            Operation::DeleteRange(range) => drop(image.ranges.remove(&range)),
            Operation::DeleteSet(id) => drop(image.sets.remove(&id)),
            Operation::DeleteName(number) => drop(image.names.remove(&number)),
        }
        Ok(())
    }

    fn observe(&self) -> Result<MapImage, Infallible> {
        Ok(self.image.clone())
    }
}
