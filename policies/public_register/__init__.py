"""The public register: what the board permits, said to the people whose images it is about."""

from policies.public_register.site import SiteOptions, write_site

__all__ = ["SiteOptions", "write_site"]
