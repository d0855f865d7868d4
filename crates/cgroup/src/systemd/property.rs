//! Settings into properties: pure, as the plan is.

use crate::dbus::Value;
use crate::error::PlanError;
use crate::plan::{Missing, Setting, Value as Wanted};

use super::devices;
use super::knobs::owner;

/// A property by name.
pub(crate) type Property = (&'static str, Value);

/// How a file's text becomes a property's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A number.
    Number,
    /// A number, where `max` and `-1` are infinite.
    Bytes,
    /// v1: microseconds in each period, `-1` infinite.
    Quota,
    Period,
    /// `quota period`.
    Bandwidth,
    Idle,
    /// `0-2,4` as a bit mask.
    List,
    /// `100`, `default 100`, or `8:0 100` for one device.
    Weight,
    /// `8:0 1048576`, for one device.
    Rate,
    /// `8:0 rbps=1 wiops=max`.
    IoMax,
    /// `8:0 target=75`, microseconds.
    Latency,
    Devices,
}

/// What the conversion has to know of this host.
#[derive(Clone, Copy)]
pub(crate) struct Host<'a> {
    /// systemd's.
    pub(crate) version: u32,
    pub(crate) is_v2: bool,
    /// The period in force, for a quota that comes without one.
    pub(crate) period_us: u64,
    /// The path of a block device below `/dev`.
    pub(crate) block_node: &'a dyn Fn(u32, u32) -> Option<String>,
    /// `/proc/devices`.
    pub(crate) drivers: &'a str,
}

/// What is systemd's, and what is left for us to write.
#[derive(Debug, Default)]
pub(crate) struct Split<'a> {
    pub(crate) properties: Vec<Property>,
    /// The settings that became properties.
    pub(crate) owned: Vec<&'a Setting>,
    pub(crate) direct: Vec<&'a Setting>,
}

const INFINITE: u64 = u64::MAX;

/// Splits a plan. A limit that systemd owns but cannot express is an error, never a write behind its back.
pub(crate) fn split<'a>(settings: &'a [Setting], host: &Host<'_>) -> Result<Split<'a>, PlanError> {
    let mut draft = Draft { host, split: Split::default(), quota: None, period: None };
    for setting in settings {
        match owner(&setting.file, host.is_v2).filter(|place| host.version >= place.since) {
            Some(place) => draft.add(setting, place.property.unwrap_or_default(), place.form)?,
            None => draft.split.direct.push(setting),
        }
    }
    draft.bandwidth();
    Ok(draft.split)
}

struct Draft<'a, 'host> {
    host: &'host Host<'host>,
    split: Split<'a>,
    /// Microseconds in each period.
    quota: Option<u64>,
    period: Option<u64>,
}

impl<'a> Draft<'a, '_> {
    fn add(&mut self, setting: &'a Setting, property: &'static str, form: Form) -> Result<(), PlanError> {
        self.split.owned.push(setting);
        let text = match &setting.value {
            Wanted::Text(text) => text.trim().to_owned(),
            Wanted::AboveUsage(bytes) => bytes.to_string(),
            Wanted::Devices(_) => return self.devices(setting),
        };
        let wrong = || PlanError::BadValue {
            limit: setting.limit,
            value: text.clone(),
            reason: format!("it cannot be told to systemd as {property}"),
        };
        match form {
            Form::Number => self.set(property, Value::U64(text.parse().map_err(|_| wrong())?)),
            Form::Bytes => self.set(property, Value::U64(number(&text).ok_or_else(wrong)?)),
            Form::Quota => self.quota = Some(number(&text).ok_or_else(wrong)?),
            Form::Period => self.period = Some(text.parse().map_err(|_| wrong())?),
            Form::Bandwidth => {
                let (quota, period) = text.split_once(' ').map_or((text.as_str(), None), |(q, p)| (q, Some(p)));
                self.quota = Some(number(quota).ok_or_else(wrong)?);
                self.period =
                    period.map(|period| period.trim().parse().map_err(|_| wrong())).transpose()?.or(self.period);
            }
            // An idle group has weight 0 in systemd's words; one that is not has its ordinary weight.
            Form::Idle if text == "1" => self.set("CPUWeight", Value::U64(0)),
            Form::Idle => {
                if !self.split.properties.iter().any(|(name, _)| *name == "CPUWeight") {
                    self.set("CPUWeight", Value::U64(INFINITE));
                }
            }
            Form::List => self.set(property, Value::Bytes(mask(&text).ok_or_else(wrong)?)),
            Form::Weight => return self.weight(setting, &text),
            Form::Rate => {
                let (major, minor, rate) = for_device(&text).ok_or_else(wrong)?;
                let rate = match rate.parse().map_err(|_| wrong())? {
                    0 => INFINITE,
                    rate => rate,
                };
                return self.device(setting, property, major, minor, rate);
            }
            Form::IoMax => {
                let (major, minor, rates) = for_device(&text).ok_or_else(wrong)?;
                for (key, rate) in rates.split_whitespace().filter_map(|word| word.split_once('=')) {
                    let property = match key {
                        "rbps" => "IOReadBandwidthMax",
                        "wbps" => "IOWriteBandwidthMax",
                        "riops" => "IOReadIOPSMax",
                        "wiops" => "IOWriteIOPSMax",
                        _ => return Err(wrong()),
                    };
                    self.device(setting, property, major, minor, number(rate).ok_or_else(wrong)?)?;
                }
            }
            Form::Latency => {
                let (major, minor, target) = for_device(&text).ok_or_else(wrong)?;
                let target = target.strip_prefix("target=").and_then(number).ok_or_else(wrong)?;
                return self.device(setting, property, major, minor, target);
            }
            Form::Devices => return Err(wrong()),
        }
        Ok(())
    }

    /// A later word on a property takes the place of an earlier one.
    fn set(&mut self, name: &'static str, value: Value) {
        match self.split.properties.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.split.properties.push((name, value)),
        }
    }

    /// BFQ's number stands beside the one of `io.weight`, and systemd converts from the latter.
    fn weight(&mut self, setting: &'a Setting, text: &str) -> Result<(), PlanError> {
        let text = match &setting.missing {
            Missing::Instead(other) if self.host.is_v2 => match &other.value {
                Wanted::Text(other) => other.clone(),
                _ => text.to_owned(),
            },
            _ => text.to_owned(),
        };
        let wrong = || PlanError::BadValue {
            limit: setting.limit,
            value: text.clone(),
            reason: "it cannot be told to systemd as a weight".to_owned(),
        };
        let (for_all, for_one) =
            if self.host.is_v2 { ("IOWeight", "IODeviceWeight") } else { ("BlockIOWeight", "BlockIODeviceWeight") };
        match for_device(&text) {
            Some((major, minor, weight)) => {
                self.device(setting, for_one, major, minor, weight.parse().map_err(|_| wrong())?)
            }
            None => {
                let weight = text.trim_start_matches("default ").parse().map_err(|_| wrong())?;
                self.set(for_all, Value::U64(weight));
                Ok(())
            }
        }
    }

    fn device(
        &mut self,
        setting: &Setting,
        property: &'static str,
        major: u32,
        minor: u32,
        value: u64,
    ) -> Result<(), PlanError> {
        let node = (self.host.block_node)(major, minor).ok_or_else(|| PlanError::BadValue {
            limit: setting.limit,
            value: format!("{major}:{minor}"),
            reason: "there is no such block device, and systemd takes them by their paths".to_owned(),
        })?;
        match self.split.properties.iter_mut().find(|(known, _)| *known == property) {
            Some((_, Value::NumberPairs(list))) => list.push((node, value)),
            _ => self.split.properties.push((property, Value::NumberPairs(vec![(node, value)]))),
        }
        Ok(())
    }

    /// On v2 a filter that systemd cannot say becomes a program of ours beside none of systemd's; on v1 there is one list only.
    fn devices(&mut self, setting: &'a Setting) -> Result<(), PlanError> {
        let Wanted::Devices(filter) = &setting.value else { return Ok(()) };
        if let Some(properties) = devices::properties(filter, self.host.drivers) {
            self.split.properties.extend(properties);
            return Ok(());
        }
        if !self.host.is_v2 {
            return Err(PlanError::NotOnVersion {
                limit: "devices",
                version: "cgroup v1 under systemd",
                way_out: "systemd can neither deny single devices nor allow a whole major number without a driver; \
                          list the devices to allow one by one, or use the cgroupfs driver"
                    .to_owned(),
            });
        }
        self.split.properties.extend(devices::open());
        self.split.owned.pop();
        self.split.direct.push(setting);
        Ok(())
    }

    /// systemd keeps microseconds in each second, in whole per cents, so the quota is rounded up to the next.
    fn bandwidth(&mut self) {
        const SECOND_US: u64 = 1_000_000;
        const PER_CENT_US: u64 = 10_000;
        if let Some(period) = self.period {
            self.set("CPUQuotaPeriodUSec", Value::U64(period));
        }
        let Some(quota) = self.quota else { return };
        let period = self.period.unwrap_or(self.host.period_us).max(1);
        let each_second = if quota == INFINITE {
            INFINITE
        } else {
            (quota.saturating_mul(SECOND_US) / period).next_multiple_of(PER_CENT_US)
        };
        self.set("CPUQuotaPerSecUSec", Value::U64(each_second));
    }
}

/// `max` and negative numbers are infinite.
fn number(text: &str) -> Option<u64> {
    if text == "max" || text.starts_with('-') { Some(INFINITE) } else { text.parse().ok() }
}

/// `8:0 rest`.
fn for_device(text: &str) -> Option<(u32, u32, &str)> {
    let (node, rest) = text.split_once(' ')?;
    let (major, minor) = node.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?, rest.trim()))
}

/// A list of processors or memory nodes as systemd takes it: bit n of byte n / 8, lowest first.
fn mask(list: &str) -> Option<Vec<u8>> {
    const NUMBER_MAX: usize = 8191;
    let mut mask = Vec::new();
    for range in list.split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.trim().parse::<usize>().ok()?, last.trim().parse::<usize>().ok()?);
        if first > last || last > NUMBER_MAX {
            return None;
        }
        if mask.len() <= last / 8 {
            mask.resize(last / 8 + 1, 0_u8);
        }
        (first..=last).for_each(|number| mask[number / 8] |= 1 << (number % 8));
    }
    (!mask.is_empty()).then_some(mask)
}
