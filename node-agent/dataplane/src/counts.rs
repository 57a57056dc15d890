//! What is counted for each service, on every CPU: pages of counts, made when a service first needs one.
//!
//! It exists because counts of all services there may ever be would take megabytes for each CPU. Must not know what is
//! counted.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use penstock_ebpf_common::{SERVICE_COUNTS_PAGE, ServiceCount, map};

use crate::DataplaneError;
use crate::kernel::pin;
use crate::sets::{MapArray, Settling};
use crate::sys;

/// The counts of all services.
pub struct Counts {
    pages: MapArray,
    /// Those opened so far.
    open: Vec<Option<OwnedFd>>,
    pages_max: u32,
    /// How many CPUs count.
    cpus: usize,
}

/// How many pages there must be for this many services.
pub const fn pages_for(services: u32) -> u32 {
    services.div_ceil(SERVICE_COUNTS_PAGE)
}

// === impl Counts ===

impl Counts {
    /// Opens them from their pin.
    pub fn open(directory: &Path) -> Result<Self, DataplaneError> {
        let outer = sys::get(&pin(directory, map::SERVICE_COUNTS)).map_err(|it| wrap("opening", it))?;
        let pages = MapArray::new(outer);
        let pages_max = pages.entries_max().map_err(|it| wrap("asking for", it))?;
        let cpus = aya::util::nr_cpus().map_err(|(path, source)| DataplaneError::Path {
            doing: "reading",
            path: path.into(),
            source,
        })?;
        Ok(Self { pages, open: Vec::new(), pages_max, cpus })
    }

    /// How many services there is room for.
    pub fn services_max(&self) -> u32 {
        self.pages_max.saturating_mul(SERVICE_COUNTS_PAGE)
    }

    /// Starts anew for these services.
    pub fn reset(&mut self, services: &[u32], settling: &mut Settling) -> Result<(), DataplaneError> {
        let mut missing = Vec::new();
        for service in services {
            let (number, bytes) = (service / SERVICE_COUNTS_PAGE, self.bytes());
            if missing.iter().any(|(page, _)| *page == number) {
                continue;
            }
            match self.page(number)? {
                Some(page) => {
                    let (key, zero) = (service % SERVICE_COUNTS_PAGE, vec![0; bytes]);
                    let written = sys::entries::set(page.as_fd(), &key.to_ne_bytes(), &zero);
                    written.map_err(|it| wrap("writing", it))?;
                }
                None => {
                    let made =
                        sys::create_percpu_array(size_of::<ServiceCount>() as u32, SERVICE_COUNTS_PAGE);
                    missing.push((number, Arc::new(made.map_err(|it| wrap("making a page of", it))?)));
                }
            }
        }
        self.pages.swap(missing, settling).map_err(|it| wrap("writing", it))
    }

    /// What was counted for a service, over all CPUs.
    pub fn get(&mut self, service: u32) -> Result<ServiceCount, DataplaneError> {
        let bytes = self.bytes();
        let Some(page) = self.page(service / SERVICE_COUNTS_PAGE)? else {
            return Ok(ServiceCount::default());
        };
        let key = service % SERVICE_COUNTS_PAGE;
        let values = sys::entries::lookup(page.as_fd(), &key.to_ne_bytes(), bytes);
        let values = values.map_err(|it| wrap("reading", it))?.unwrap_or_default();
        let counts = values.chunks_exact(size_of::<ServiceCount>()).map(|bytes| {
            // SAFETY: as many bytes as the type has, which is plain integers.
            unsafe { bytes.as_ptr().cast::<ServiceCount>().read_unaligned() }
        });
        Ok(counts.fold(ServiceCount::default(), |sum, count| ServiceCount {
            connects: sum.connects + count.connects,
            datagrams: sum.datagrams + count.datagrams,
            packets: sum.packets + count.packets,
            replies: sum.replies + count.replies,
            refused: sum.refused + count.refused,
            drops: sum.drops + count.drops,
        }))
    }

    /// Of the counts of a service on all CPUs.
    fn bytes(&self) -> usize {
        const {
            assert!(
                size_of::<ServiceCount>().is_multiple_of(8),
                "the kernel rounds values of each CPU up to words"
            )
        };
        self.cpus * size_of::<ServiceCount>()
    }

    fn page(&mut self, number: u32) -> Result<Option<&OwnedFd>, DataplaneError> {
        let at = number as usize;
        if self.open.len() <= at {
            self.open.resize_with(at + 1, || None);
        }
        if self.open[at].is_none() {
            self.open[at] = self.pages.get(number).map_err(|it| wrap("reading", it))?;
        }
        Ok(self.open[at].as_ref())
    }
}

fn wrap(doing: &'static str, source: std::io::Error) -> DataplaneError {
    DataplaneError::Kernel { doing, subject: map::SERVICE_COUNTS.to_owned(), source }
}
