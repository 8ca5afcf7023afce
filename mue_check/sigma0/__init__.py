"""The sigma_0 laboratory: gradient noise of experts, how it depends on their load, and what that costs."""
