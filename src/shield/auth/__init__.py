"""Who calls: principals and what they may do."""

from shield.auth.principal import LOCAL, Principal, Scope

__all__ = ["LOCAL", "Principal", "Scope"]
