package attesttest

import (
	"crypto/elliptic"
	"crypto/x509"
	"slices"
	"time"

	"strongroom/kms/attest"
)

// chainCases are documents whose certificates do not lead from the trusted root to their signer.
func chainCases() []Case {
	return slices.Concat(
		refused(attest.Untrusted, rootCases()),
		refused(attest.BadChain, bundleCases()),
		refused(attest.BadChain, caCases()),
		refused(attest.BadChain, signerCases()),
		refused(attest.BadChain, validityCases()),
		refused(attest.BadChain, damageCases()))
}

// rootCases are those that do not begin with the root.
func rootCases() []Case {
	return []Case{
		{Name: "root-other", About: "another root with the same names", plan: otherRoot("other root")},
		{Name: "root-reissued", About: "another certificate of the same root, with another serial number", plan: func(p *plan) {
			root := p.links[linkRoot]
			root.der = change(root.der, root.key, func(t *tbs) { t.Serial = p.random.serial("reissued root") })
		}},
		{Name: "root-signature", About: "the root with another signature of its own", bundle: func(p *plan) {
			p.bundle[0] = flip(p.bundle[0], -1)
		}},
		{Name: "root-trailing-byte", About: "a byte after the root", bundle: func(p *plan) { p.bundle[0] = append(p.bundle[0][:len(p.bundle[0]):len(p.bundle[0])], 0) }},
		{Name: "root-missing", About: "the root is not in the bundle", bundle: func(p *plan) { p.bundle = p.bundle[1:] }},
		{Name: "root-last", About: "the bundle is in the reverse order", bundle: func(p *plan) { slices.Reverse(p.bundle) }},
		{Name: "root-second", About: "a stray certificate before the root", bundle: func(p *plan) {
			p.bundle = slices.Insert(p.bundle, 0, p.bundle[linkZone])
		}},
		{Name: "root-garbage", About: "garbage before the root", bundle: func(p *plan) {
			p.bundle = slices.Insert(p.bundle, 0, []byte("garbage"))
		}},
	}
}

// otherRoot puts another root in the place of the one that is there: the names are the same, the key is not.
func otherRoot(label string) func(*plan) {
	return func(p *plan) {
		root := p.links[linkRoot]
		root.key = p.random.key(label, elliptic.P384())
		root.der = change(root.der, root.key, func(t *tbs) { mustUnmarshal(marshalPublicKey(root.key.Public()), &t.PublicKey) })
	}
}

// bundleCases are those whose bundle is not the one path from the root to the signer.
func bundleCases() []Case {
	return []Case{
		{Name: "root-copied", About: "the chain of another root, with the trusted root's certificate in the place of its own", plan: func(p *plan) {
			trusted := p.links[linkRoot].der
			otherRoot("other root")(p)
			p.links[linkRoot].der = trusted
		}},
		{Name: "root-copied-long", About: "the longest chain of another root, with the trusted root's certificate in the place of its own", plan: func(p *plan) {
			longChain(p)
			trusted := p.links[linkRoot].der
			otherRoot("other root")(p)
			p.links[linkRoot].der = trusted
		}},
		{Name: "root-alone", About: "only the root is in the bundle", bundle: func(p *plan) { p.bundle = p.bundle[:1] }},
		{Name: "root-twice", About: "the root is there twice", bundle: func(p *plan) { p.bundle = slices.Insert(p.bundle, 1, p.bundle[0]) }},
		{Name: "root-at-end", About: "the root is there once more, at the end", bundle: func(p *plan) { p.bundle = append(p.bundle, p.bundle[0]) }},
		{Name: "region-missing", About: "the region's certificate is missing", bundle: dropped(linkRegion)},
		{Name: "zone-missing", About: "the zone's certificate is missing", bundle: dropped(linkZone)},
		{Name: "instance-missing", About: "the instance's certificate is missing", bundle: dropped(linkInstance)},
		{Name: "region-twice", About: "the region's certificate is there twice", bundle: func(p *plan) {
			p.bundle = slices.Insert(p.bundle, linkZone, p.bundle[linkRegion])
		}},
		{Name: "bundle-reversed", About: "the certificates under the root are in the reverse order", bundle: func(p *plan) { slices.Reverse(p.bundle[1:]) }},
		{Name: "bundle-swapped", About: "the zone's and the instance's certificate are swapped", bundle: func(p *plan) {
			p.bundle[linkZone], p.bundle[linkInstance] = p.bundle[linkInstance], p.bundle[linkZone]
		}},
		{Name: "bundle-with-signer", About: "the signer's certificate is in the bundle too", bundle: func(p *plan) { p.bundle = append(p.bundle, p.certificate) }},
		{Name: "bundle-stray-end", About: "a certificate that vouches for nothing, at the end", bundle: func(p *plan) { p.bundle = append(p.bundle, p.stray()) }},
		{Name: "bundle-stray-middle", About: "a certificate that vouches for nothing, in between", bundle: func(p *plan) {
			p.bundle = slices.Insert(p.bundle, linkZone, p.stray())
		}},
		{Name: "bundle-stray-zone", About: "another zone of the same region in place of the zone", bundle: func(p *plan) { p.bundle[linkZone] = p.stray() }},
		{Name: "bundle-same-names", About: "seven CAs with one name, each of which might have issued any other", plan: func(p *plan) {
			longChain(p)
			for _, l := range p.links[2:8] {
				l.template.Subject = p.links[1].template.Subject
				noPathLength(l.template)
			}
			noPathLength(p.links[1].template)
		}},
		{Name: "bundle-same-keys", About: "seven CAs with one name and one key, each of which did issue any other", plan: func(p *plan) {
			longChain(p)
			for _, l := range p.links[1:8] {
				l.template.Subject, l.key = p.links[1].template.Subject, p.links[1].key
				noPathLength(l.template)
			}
		}},
		{Name: "bundle-self-signed", About: "a region that vouches for itself, with the root's name as issuer", plan: func(p *plan) {
			p.links[linkRegion].signer = p.links[linkRegion].key
		}},
		{Name: "bundle-named-as-root", About: "a region with the name of the root", plan: func(p *plan) {
			region := p.links[linkRegion].template
			region.RawSubject, region.Subject = p.links[linkRoot].template.RawSubject, p.links[linkRoot].template.Subject
		}},
	}
}

// dropped takes one certificate out of the bundle.
func dropped(link int) func(*plan) {
	return func(p *plan) { p.bundle = slices.Delete(p.bundle, link, link+1) }
}

// stray returns the certificate of a CA that the region vouches for, and that has nothing to do with the signer.
func (p *plan) stray() []byte {
	other := &plan{random: source{p.random.bytes("stray", 32)}, time: p.time}
	other.addCA("stray", "stray", 1, x509.KeyUsageCertSign, time.Hour, 24*time.Hour)
	if err := other.links[0].issue(p.links[linkRegion]); err != nil {
		panic(err)
	}
	return other.links[0].der
}

// caCases are those with a CA that may not vouch for what is under it.
func caCases() []Case {
	return []Case{
		{Name: "path-length-region", About: "a region that may have no CA under it", plan: template(linkRegion, pathLengthZero)},
		{Name: "path-length-zone", About: "a zone that may have no CA under it", plan: template(linkZone, pathLengthZero)},
		{Name: "path-length-region-1", About: "a region that may have one CA under it, with two", plan: template(linkRegion, func(c *x509.Certificate) {
			c.MaxPathLen = 1
		})},
		{Name: "ca-no-cert-sign", About: "a zone without keyCertSign", plan: template(linkZone, func(c *x509.Certificate) {
			c.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign
		})},
		{Name: "ca-no-key-usage", About: "a zone without a key usage", plan: template(linkZone, func(c *x509.Certificate) { c.KeyUsage = 0 })},
		{Name: "ca-no-key-usage-instance", About: "an instance without a key usage", plan: template(linkInstance, func(c *x509.Certificate) { c.KeyUsage = 0 })},
		{Name: "ca-key-usage-empty", About: "a zone whose key usage has no bits", plan: changed(linkZone, with(extKeyUsage, "\x03\x01\x00"))},
		{Name: "ca-not", About: "a zone that is not a CA", plan: template(linkZone, notCA)},
		{Name: "ca-not-instance", About: "an instance that is not a CA", plan: template(linkInstance, notCA)},
		{Name: "ca-no-constraints", About: "a zone without basic constraints", plan: template(linkZone, func(c *x509.Certificate) {
			c.BasicConstraintsValid = false
		})},
		{Name: "ca-v1", About: "a zone with a certificate of version 1", plan: changed(linkZone, versionOne)},
		{Name: "ca-v1-instance", About: "an instance with a certificate of version 1", plan: changed(linkInstance, versionOne)},
		{Name: "ca-critical", About: "a zone with a critical extension that is not known", plan: template(linkZone, criticalUnknown)},
		{Name: "ca-critical-region", About: "a region with a critical extension that is not known", plan: template(linkRegion, criticalUnknown)},
		{Name: "ca-p256", About: "a zone with a key of P-256", plan: curve(linkZone, elliptic.P256(), x509.ECDSAWithSHA256)},
		{Name: "ca-p521", About: "an instance with a key of P-521", plan: curve(linkInstance, elliptic.P521(), x509.ECDSAWithSHA512)},
		{Name: "ca-sha256", About: "a zone signed with SHA-256", plan: template(linkZone, func(c *x509.Certificate) {
			c.SignatureAlgorithm = x509.ECDSAWithSHA256
		})},
		{Name: "ca-other-key", About: "an instance with the zone's name as issuer, signed by another key", plan: func(p *plan) {
			p.links[linkInstance].signer = p.random.key("nobody", elliptic.P384())
		}},
		{Name: "ca-skips", About: "an instance with the zone's name as issuer, signed by the region", plan: func(p *plan) {
			p.links[linkInstance].signer = p.links[linkRegion].key
		}},
		{Name: "constraints-broken", About: "a signer for another domain than its CA may vouch for", plan: func(p *plan) {
			zone := p.links[linkZone].template
			zone.PermittedDNSDomains, zone.PermittedDNSDomainsCritical = []string{"inside.test"}, true
			p.links[linkSigner].template.DNSNames = []string{"outside.test"}
		}},
		{Name: "constraints-costly", About: "as many names in the signer's certificate, and as many that its CAs exclude, as there is room for", plan: func(p *plan) {
			for i := range 45 {
				label := string([]byte{byte('a' + i/26), byte('a' + i%26)})
				for _, l := range p.links[linkRegion:linkSigner] {
					l.template.CRLDistributionPoints = nil
					l.template.ExcludedDNSDomains = append(l.template.ExcludedDNSDomains, label)
				}
				signer := p.links[linkSigner].template
				signer.DNSNames = append(signer.DNSNames, "x."+label)
			}
		}},
	}
}

func pathLengthZero(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true }

func notCA(c *x509.Certificate) {
	c.IsCA = false
	noPathLength(c)
}

func versionOne(t *tbs) { t.Version, t.Extensions = 0, nil }

func criticalUnknown(c *x509.Certificate) {
	c.ExtraExtensions = append(c.ExtraExtensions, unknownExtension(true))
}

// changed changes one certificate in a way that [x509.CreateCertificate] would not.
func changed(link int, f func(*tbs)) func(*plan) {
	return func(p *plan) { p.links[link].change = f }
}

// curve gives a CA a key of another curve, which signs what is under it.
func curve(link int, c elliptic.Curve, below x509.SignatureAlgorithm) func(*plan) {
	return func(p *plan) {
		p.links[link].key = p.random.key("other curve", c)
		p.links[link+1].template.SignatureAlgorithm = below
	}
}
