# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of a result in the scene. Data API only, so that it also runs in background."""
