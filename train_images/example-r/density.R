# Lung density on chest CT: of each training patient the 15th percentile of the lung's Hounsfield units (PD15), the usual measure of
# emphysema next to the share below -950 HU, and over all of them how it goes with age.
#
# One message: the request is in request/head.json, the answer goes to reply/head.json. Rows are counted by the station.
#
# Both: Parr et al., Thorax 61:485, 2006; the threshold: Gevenois et al., Am J Respir Crit Care Med 154:187, 1996. The lung is found roughly, as what is between -1000 and -500 HU between the skin of one side and of the other: an
# example, and no measurement for patients.
library(jsonlite)

DATA <- Sys.getenv("PHT_DATA", "/train/data")
SKIN_HU <- -300L
LUNG_HU <- c(-1000L, -501L)
LEAST_VOXELS <- 1000
LEAST_PATIENTS <- 8
VOXELS_AT <- 352

# NIfTI-1: eight int16 of dimensions at byte 40, the data type at 70 (4: int16); a station's volumes are plain and little-endian.
lung_counts <- function(path) {
  file <- file(path, "rb")
  on.exit(close(file))
  head <- readBin(file, "raw", VOXELS_AT)
  dims <- readBin(head[41:56], "integer", 8, size = 2, endian = "little")
  type <- readBin(head[71:72], "integer", 1, size = 2, endian = "little")
  if (dims[1] != 3 || type != 4) stop("not a volume of int16")
  values <- seq(LUNG_HU[1], LUNG_HU[2])
  counts <- numeric(length(values))
  for (slice in seq_len(dims[4])) {
    hu <- readBin(file, "integer", dims[2] * dims[3], size = 2, endian = "little")
    if (length(hu) != dims[2] * dims[3]) stop("a volume ends early")
    counts <- counts + lung_of_slice(matrix(hu, dims[2], dims[3]))
  }
  counts
}

# Per image row (a column of the matrix) the voxels between the first and the last that are skin or denser.
lung_of_slice <- function(hu) {
  rows <- t(hu > SKIN_HU)
  some <- which(rowSums(rows) > 0)
  if (length(some) == 0) return(numeric(LUNG_HU[2] - LUNG_HU[1] + 1))
  first <- max.col(rows[some, , drop = FALSE], ties.method = "first")
  last <- max.col(rows[some, , drop = FALSE], ties.method = "last")
  inside <- hu[, some, drop = FALSE]
  at <- row(inside)
  found <- inside[at >= first[col(inside)] & at <= last[col(inside)]]
  tabulate(found[found >= LUNG_HU[1] & found <= LUNG_HU[2]] - LUNG_HU[1] + 1L, LUNG_HU[2] - LUNG_HU[1] + 1)
}

# The smallest value of which at least this share is at or below.
percentile <- function(counts, share) {
  seq(LUNG_HU[1], LUNG_HU[2])[which(cumsum(counts) >= share * sum(counts))[1]]
}

fail <- function(code) {
  write_json(list(error = unbox(code)), "reply/head.json")
  quit(status = 0)
}

# The middle of a band such as 60-69; 90+ is everybody of 90 and over.
age_of <- function(band) {
  if (is.na(band) || band == "") return(NA_real_)
  mean(as.numeric(strsplit(sub("+", "", band, fixed = TRUE), "-", fixed = TRUE)[[1]]))
}

config <- fromJSON("request/head.json")$config
share <- (if (is.null(config$percentile)) 15 else config$percentile) / 100
training <- fromJSON(file.path(DATA, "datalist.json"), simplifyVector = FALSE)$training
if (length(training) == 0) fail("NO_IMAGES")

patient <- vapply(training, function(entry) entry$patient, "")
patients <- unique(patient)
# A patient of several scans counts once, with all of their voxels.
counts <- lapply(patients, function(one) {
  Reduce(`+`, lapply(training[patient == one], function(entry) lung_counts(file.path(DATA, entry$image))))
})
enough <- vapply(counts, sum, 0) >= LEAST_VOXELS
density <- ifelse(enough, vapply(counts, percentile, 0, share = share), NA)
dark <- ifelse(enough, vapply(counts, function(each) sum(each[seq_len(-950 - LUNG_HU[1])]) / sum(each), 0), NA)

table <- read.csv(file.path(DATA, "clinical.csv"), colClasses = "character")
table <- table[match(patients, table$patient), ]
age <- vapply(table$age_years, age_of, 0)
sex <- ifelse(table$sex %in% c("F", "M"), table$sex, NA)

# How density goes with age at equal sex, and without a line drawn through it.
whole <- !is.na(density) & !is.na(age) & !is.na(sex)
if (sum(whole) < LEAST_PATIENTS || length(unique(age[whole])) < 2 || length(unique(density[whole])) < 2) fail("TOO_FEW")
terms <- if (length(unique(sex[whole])) > 1) density ~ age + sex else density ~ age
slope <- coef(lm(terms, data = data.frame(density, age, sex)[whole, ]))[["age"]]
if (is.na(slope)) fail("TOO_FEW")
rank <- cor(age[whole], density[whole], method = "spearman")

metrics <- list(hu_per_decade = unbox(max(-500, min(500, 10 * slope))), rank_correlation = unbox(rank))
rows <- list(lung_density_hu = density, low_attenuation_share = dark)
write_json(list(metrics = metrics, rows = rows), "reply/head.json", digits = NA, na = "null")
