//! The hugetlb controller.

use oci_spec::runtime::LinuxHugepageLimit;

use super::Setting;

/// One entry of `linux.resources.hugepageLimits`.
pub(super) fn settings(limit: &LinuxHugepageLimit, all: &mut Vec<Setting>) -> Result<(), String> {
    let size = limit.page_size();
    if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(format!("linux.resources.hugepageLimits: {size:?} is no page size such as \"2MB\""));
    }
    all.push(Setting::new("hugepageLimits", format!("hugetlb.{size}.max"), limit.limit()));
    Ok(())
}
