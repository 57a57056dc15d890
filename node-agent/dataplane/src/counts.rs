//! What is counted for each service, on every CPU: pages of counts, made when a service first needs one.
//!
//! It exists because counts of all services there may ever be would take megabytes for each CPU. Must not know what is
//! counted.

use std::path::Path;
use std::sync::Arc;

use aya::maps::{Map, MapData, MapError, PerCpuArray, PerCpuValues};
use penstock_ebpf_common::{SERVICE_COUNTS_PAGE, ServiceCount, map};

use crate::DataplaneError;
use crate::kernel::{failed, pin};
use crate::sets::{MapArray, Settling};
use crate::sys;

type Page = PerCpuArray<MapData, ServiceCount>;

/// The counts of all services.
pub struct Counts {
    pages: MapArray,
    /// Those opened so far.
    open: Vec<Option<Page>>,
    pages_max: u32,
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
        Ok(Self { pages, open: Vec::new(), pages_max })
    }

    /// How many services there is room for.
    pub fn services_max(&self) -> u32 {
        self.pages_max.saturating_mul(SERVICE_COUNTS_PAGE)
    }

    /// Starts anew for these services.
    pub fn reset(&mut self, services: &[u32], settling: &mut Settling) -> Result<(), DataplaneError> {
        let mut missing = Vec::new();
        for service in services {
            let number = service / SERVICE_COUNTS_PAGE;
            if missing.iter().any(|(page, _)| *page == number) {
                continue;
            }
            match self.page(number)? {
                Some(page) => zero(page, service % SERVICE_COUNTS_PAGE)?,
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
        let Some(page) = self.page(service / SERVICE_COUNTS_PAGE)? else {
            return Ok(ServiceCount::default());
        };
        let values = page
            .get(&(service % SERVICE_COUNTS_PAGE), 0)
            .map_err(|error| failed("reading a map", map::SERVICE_COUNTS, error))?;
        Ok(values.iter().fold(ServiceCount::default(), |sum, count| ServiceCount {
            connects: sum.connects + count.connects,
            datagrams: sum.datagrams + count.datagrams,
            packets: sum.packets + count.packets,
            replies: sum.replies + count.replies,
            refused: sum.refused + count.refused,
            drops: sum.drops + count.drops,
        }))
    }

    fn page(&mut self, number: u32) -> Result<Option<&mut Page>, DataplaneError> {
        let at = number as usize;
        if self.open.len() <= at {
            self.open.resize_with(at + 1, || None);
        }
        if self.open[at].is_none() {
            let found = self.pages.get(number).map_err(|it| wrap("reading", it))?;
            self.open[at] = found
                .map(|fd| page_of(fd).map_err(|it| failed("opening a page of", map::SERVICE_COUNTS, it)))
                .transpose()?;
        }
        Ok(self.open[at].as_mut())
    }
}

fn page_of(fd: std::os::fd::OwnedFd) -> Result<Page, MapError> {
    Page::try_from(Map::from_map_data(MapData::from_fd(fd)?)?)
}

fn zero(page: &mut Page, index: u32) -> Result<(), DataplaneError> {
    let cpus = aya::util::nr_cpus().map_err(|(path, source)| DataplaneError::Path {
        doing: "reading",
        path: path.into(),
        source,
    })?;
    let zero =
        PerCpuValues::try_from(vec![ServiceCount::default(); cpus]).map_err(|it| wrap("writing", it))?;
    page.set(index, zero, 0).map_err(|error| failed("writing a map", map::SERVICE_COUNTS, error))
}

fn wrap(doing: &'static str, source: std::io::Error) -> DataplaneError {
    DataplaneError::Kernel { doing, subject: map::SERVICE_COUNTS.to_owned(), source }
}
